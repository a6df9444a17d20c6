"""What cannot be done with a major is no test there: one that returns at once would pass, and show nothing."""

from lib.cluster import CONFIG


def pytest_pycollect_makeitem(collector, name):
    major = collector.config.getoption("--pg")
    possible = {
        "test_install_use_remove": "release" in CONFIG["pg"][major],  # a Debian that has it
        "test_extension_volume": int(major) >= 18,  # which finds extensions outside of its own folders
    }
    return None if possible.get(name, True) else []

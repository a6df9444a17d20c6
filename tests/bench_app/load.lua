-- For wrk: GET the profile of one user after the other, at random, each with his own token of the file TOKENS.
-- Each of wrk's threads asks a server of its own, of those at PORTS. Prints the figures as JSON.

local ports, requests = {}, {}
for port in os.getenv("PORTS"):gmatch("%d+") do ports[#ports + 1] = port end

local threads = 0
function setup(thread)
    threads = threads + 1
    thread.addr = wrk.lookup("127.0.0.1", ports[threads])[1]
    thread:set("seed", tonumber(os.getenv("SEED")) + threads)
end

function init()
    math.randomseed(seed)
    for token in io.lines(os.getenv("TOKENS")) do
        requests[#requests + 1] = wrk.format("GET", "/api/v1/auth/profile/", {Authorization = "Bearer " .. token})
    end
end

function request()
    return requests[math.random(#requests)]
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{"requests": %d, "seconds": %f, "failed": %d, "p50 ms": %f, "p95 ms": %f, "p99 ms": %f}',
        summary.requests, summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000
    ))
end

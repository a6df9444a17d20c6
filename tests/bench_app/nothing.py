"""What the server and the load generator take by themselves: an answer as long as a profile, and no Django."""

BODY = b'{"nothing": "' + b"." * 800 + b'"}'


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]

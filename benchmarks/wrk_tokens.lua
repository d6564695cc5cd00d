-- Sends each access token of BENCH_TOKENS in turn, with BENCH_IF_NONE_MATCH where there is one, and closes with one line of JSON.

local requests, turn = {}, 0

function init()
  for token in os.getenv("BENCH_TOKENS"):gmatch("[^\n]+") do
    local headers = { ["Authorization"] = "Bearer " .. token }
    local etag = os.getenv("BENCH_IF_NONE_MATCH")
    if etag and etag ~= "" then
      headers["If-None-Match"] = etag
    end
    requests[#requests + 1] = wrk.format("GET", nil, headers)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"status_errors":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end

-- Requests that were made before the clock started, one after the other: a file of (length in 8 digits, bytes of HTTP/1.1).
local requests, nth = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local length = file:read(8)
  while length do
    requests[#requests + 1] = file:read(tonumber(length))
    length = file:read(8)
  end
  file:close()
end

function request()
  nth = nth + 1
  return requests[(nth - 1) % #requests + 1]
end

function done(summary, latency)
  io.write(string.format('\n{"done":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end

-- For wrk: sends each proof of a file once, and stops when there are no more.
--
--   wrk … -s requests.lua URL -- FOLDER SET
--
-- The files are those of `proofs`: thread N reads FOLDER/SET-N.txt, a line for each request. At the end one line says
-- what was measured, or why the measurement is none (exit status 1).

local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int pid, int signal); int usleep(unsigned microseconds);")
local SIGINT = 2

-- In wrk's own state, which sees the threads only from outside.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
   thread:set("number", #threads)
end

function done(summary, latency)
   local finished = false
   for _, thread in ipairs(threads) do
      finished = finished or thread:get("finished")
   end
   local errors = summary.errors
   local wrong = errors.connect + errors.read + errors.write + errors.timeout + errors.status
   if wrong > 0 or not finished then
      io.stderr:write(string.format(
         "%d requests: %d rejected, %d connections failed, %d reads failed, %d writes failed, %d were late; all sent: %s\n",
         summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout, tostring(finished)))
      os.exit(1)
   end
   local seconds = summary.duration / 1e6
   print(string.format("measured requests=%d rate=%.0f p50=%d p99=%d p999=%d",
      summary.requests, summary.requests / seconds,
      latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end

-- In the state of each thread. What `thread:get` asks for is global.

finished = false
local tokens, proofs, opening, begun = {}, nil, nil, false

function init(arguments)
   local folder, set = arguments[1], arguments[2]
   for token in io.lines(folder .. "/tokens.txt") do
      table.insert(tokens, token)
   end
   proofs = assert(io.open(string.format("%s/%s-%d.txt", folder, set, number)))
   -- As `wrk.format` would write it, which is too slow for a million requests.
   opening = string.format("GET %s HTTP/1.1\r\nHost: %s:%s\r\n", wrk.path, wrk.host, wrk.port)
end

-- wrk asks the first thread once before it begins, to see what a request looks like, and does not send it.
local asked_before = false

function request()
   if number == 1 and not asked_before then
      asked_before = true
      return opening .. "\r\n"
   end
   if not begun then
      begun = true
      wait_for_wrk()
   end
   local line = proofs:read("*l")
   if not line then
      return stop()
   end
   local client, proof = line:match("^(%d+) (.+)$")
   return opening .. "Authorization: DPoP " .. tokens[tonumber(client)] .. "\r\nDPoP: " .. proof .. "\r\n\r\n"
end

-- wrk's main thread takes the time, and then sleeps until the end. A wake-up must not come before that, or it
-- would never wake up: `stop` of a short measurement could.
function wait_for_wrk()
   for _ = 1, 5000 do
      local state = io.lines("/proc/self/stat")():match("%) (%a)")
      if state == "S" then
         return
      end
      ffi.C.usleep(1000)
   end
end

-- Ends the measurement, and gives wrk one more request, whose response is not awaited.
function stop()
   if not finished then
      finished = true
      -- Without this, wrk would sleep until the end of the time it was given, and divide the requests by that.
      ffi.C.kill(ffi.C.getpid(), SIGINT)
   end
   wrk.thread:stop()
   return opening .. "\r\n"
end

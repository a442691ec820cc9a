// Sends the request of http_probe.sh. For Node.js 10 and later.
const e = process.env, u = new URL(e.URL), m = require(u.protocol === "https:" ? "https" : "http");
const named = e.NAME ? {hostname: e.HOST, servername: e.NAME} : {};
const r = m.request(u, {...named, method: e.METHOD, rejectUnauthorized: false, timeout: e.TIMEOUT * 1000,
  headers: {Host: u.host, ...(e.BODY ? {"Content-Type": "application/json"} : {})}}, a => {
  console.log("HTTP/" + a.httpVersion + " " + a.statusCode + " " + a.statusMessage + "\r\n\r");
  let n = 0; a.on("data", d => { process.stdout.write(d); n += d.length; if (n > 4096) process.exit(0); });
});
r.on("timeout", () => r.destroy(new Error("timed out"))); r.on("error", x => { console.log(String(x)); });
r.end(e.BODY);
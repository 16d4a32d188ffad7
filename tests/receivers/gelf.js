// graygelf over UDP: prints each message as a line of JSON.
const [port] = process.argv.slice(2);
const server = require("graygelf/server")();
server.on("message", (message) => console.log(JSON.stringify(message)));
server.on("error", (error) => console.log(JSON.stringify({ error: String(error) })));
server.listen(Number(port), "127.0.0.1");
server._udp.on("listening", () => console.log("ready"));

// The official forward server: prints each event as a line of JSON.
const { FluentServer } = require("@fluent-org/logger");
const [port] = process.argv.slice(2);
const server = new FluentServer({ listenOptions: { port: Number(port), host: "127.0.0.1" } });
server.on("entry", (tag, time, record) => {
  const moment = typeof time === "number" ? { seconds: time, nano: 0 } :
    { seconds: time.epoch ?? time.seconds, nano: time.nano ?? time.nanos };
  // The server gives an empty string as an empty Buffer.
  for (const key of Object.keys(record)) {
    if (record[key] instanceof Uint8Array) record[key] = Buffer.from(record[key]).toString();
  }
  console.log(JSON.stringify({ tag, time: moment, record }));
});
server.listen().then(() => console.log("ready"));

// A volume plugin as Docker's authors of plugins write them: directories behind a socket.
// node volumes.js unix:PATH|tcp:PORT|tls:PORT DIRECTORY; a file DIRECTORY/silent makes it fall
// silent. With TLS, DIRECTORY has ca.pem, server.pem and server.key, and clients need a certificate.
// IMPLEMENTS is the kind of plugin.
const fs = require("fs");
const http = require("http");
const https = require("https");
const path = require("path");

const [address, root] = process.argv.slice(2);
const stateFile = path.join(root, "state.json");
const state = fs.existsSync(stateFile) ? JSON.parse(fs.readFileSync(stateFile)) : {};
const log = (line) => fs.appendFileSync(path.join(root, "calls"), line + "\n");
const save = () => fs.writeFileSync(stateFile, JSON.stringify(state));
const place = (name) => path.join(root, "volumes", name);

function known(name) {
  if (!state[name]) throw new Error(`volume ${name} is not here`);
  return state[name];
}

const shown = (name) => ({
  Name: name,
  Mountpoint: known(name).mounted.length ? place(name) : "",
  CreatedAt: "2020-01-02T03:04:05Z",
  Status: { options: Object.keys(state[name].options).length },
});

const methods = {
  "/Plugin.Activate": () => ({ Implements: [process.env.IMPLEMENTS || "VolumeDriver"] }),
  "/VolumeDriver.Capabilities": () => ({ Capabilities: { Scope: "global" } }),
  "/VolumeDriver.Create": ({ Name, Opts }) => {
    if (Opts && Opts.fail) throw new Error(`will not: ${Opts.fail}`);
    fs.mkdirSync(place(Name), { recursive: true });
    state[Name] = state[Name] || { options: Opts || {}, mounted: [] };
    return {};
  },
  "/VolumeDriver.Remove": ({ Name }) => {
    if (known(Name).mounted.length) throw new Error("still mounted");
    fs.rmSync(place(Name), { recursive: true });
    delete state[Name];
    return {};
  },
  "/VolumeDriver.Path": ({ Name }) => ({ Mountpoint: shown(Name).Mountpoint }),
  "/VolumeDriver.Mount": ({ Name, ID }) => {
    if (!known(Name).mounted.includes(ID)) state[Name].mounted.push(ID);
    return { Mountpoint: place(Name) };
  },
  "/VolumeDriver.Unmount": ({ Name, ID }) => {
    if (!known(Name).mounted.includes(ID)) throw new Error("not mounted");
    state[Name].mounted = state[Name].mounted.filter((id) => id !== ID);
    return {};
  },
  "/VolumeDriver.Get": ({ Name }) => ({ Volume: shown(Name) }),
  "/VolumeDriver.List": () => ({ Volumes: Object.keys(state).map(shown) }),
};

const serve = (request, response) => {
  let body = "";
  request.on("data", (data) => (body += data));
  request.on("end", () => {
    log(`${request.method} ${request.url} ${body.trim()}`);
    if (fs.existsSync(path.join(root, "silent"))) return;
    let status = 200;
    let answer;
    try {
      if (!methods[request.url]) throw Object.assign(new Error("no such method"), { status: 404 });
      answer = methods[request.url](body ? JSON.parse(body) : {});
      save();
    } catch (error) {
      status = error.status || 500;
      answer = { Err: error.message };
    }
    response.writeHead(status, { "Content-Type": "application/vnd.docker.plugins.v1.2+json" });
    response.end(JSON.stringify(answer));
  });
};
const pem = (name) => fs.readFileSync(path.join(root, name));
const secure = () => ({
  ca: pem("ca.pem"), cert: pem("server.pem"), key: pem("server.key"),
  requestCert: true, rejectUnauthorized: true,
});
const server = address.startsWith("tls:")
  ? https.createServer(secure(), serve)
  : http.createServer(serve);

fs.mkdirSync(path.join(root, "volumes"), { recursive: true });
const target = address.startsWith("unix:") ? { path: address.slice(5) } : { port: +address.slice(4), host: "127.0.0.1" };
server.listen(target);

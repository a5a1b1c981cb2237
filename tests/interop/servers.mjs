// Starts and stops: the examples of this crate and `dpop-gateway` as processes, and servers in this one.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** Where the examples are, built. */
const examples = process.env.INTEROP_EXAMPLES;
/** Milliseconds in which a server listens and a client has ended, if ever. */
const PATIENCE = 60_000;
/** Follows the redirects of a login, as a browser does. */
export const BROWSER = 'curl --silent --location --max-time 30';

/** The audience of all access tokens; a name, never an address. */
export const AUDIENCE = 'https://api.example.com/';

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** Our authorization server. */
export async function authorizationServer({ nonces = false, algs, tokenLife } = {}) {
  const server = await listen('authorization_server', [
    '--audience', AUDIENCE,
    ...(nonces ? ['--nonces'] : []),
    ...(algs ? ['--algs', algs] : []),
    ...(tokenLife ? ['--token-life', `${tokenLife}`] : []),
  ]);
  return { ...server, issuer: server.url, jwks: `${server.url}/jwks` };
}

/**
 * Our resource server, for the tokens of an issuer, whose keys are discovered unless it is said
 * where they are. `introspection` has the URL of an endpoint, and our id and secret there. With
 * `audience` null it is that of the server's URL.
 */
export function resourceServer({ issuer, jwks }, {
  nonces, nonceSecretFile, insecureOneUsePerNode, redis, publicUrl, algs, lenientTyp, audience = AUDIENCE, introspection,
  allowBearer, reportOnly, scopes, metadata, maxAge, leeway, port,
} = {}) {
  return listen('resource_server', [
    ...(issuer ? ['--issuer', issuer] : []),
    ...(jwks ? ['--jwks', jwks] : []),
    ...(audience ? ['--audience', audience] : []),
    ...(introspection ? ['--introspection', introspection.endpoint] : []),
    ...(introspection ? ['--client-id', introspection.id] : []),
    ...(introspection ? ['--client-secret', introspection.secret] : []),
    ...(publicUrl ? ['--public-url', publicUrl] : []),
    ...(nonces ? ['--nonces'] : []),
    ...(nonceSecretFile ? ['--nonce-secret-file', nonceSecretFile] : []),
    ...(insecureOneUsePerNode ? ['--insecure-one-use-per-node'] : []),
    ...(redis ? ['--redis', redis] : []),
    ...(algs ? ['--algs', algs] : []),
    ...(lenientTyp ? ['--lenient-typ'] : []),
    ...(allowBearer ? ['--allow-bearer'] : []),
    ...(reportOnly ? ['--report-only'] : []),
    ...(scopes ? ['--scopes', scopes] : []),
    ...(metadata ? ['--metadata'] : []),
    ...(maxAge === undefined ? [] : ['--max-age', `${maxAge}`]),
    ...(leeway === undefined ? [] : ['--leeway', `${leeway}`]),
  ], port);
}

/** `dpop-gateway` as a reverse proxy, in front of the service at `upstream`. */
export function gateway(issuer, { upstream, keepAuthorization, timeout, ...options }) {
  return program('proxy', issuer, options, [
    '[[listener]]',
    'address = "127.0.0.1:0"',
    '[upstream.application]',
    `servers = ["${upstream}"]`,
    ...(timeout ? [`read_timeout_seconds = ${timeout}`] : []),
    '[[route]]',
    'path = "/"',
    'upstream = "application"',
    ...(keepAuthorization ? ['keep_authorization = true'] : []),
  ]);
}

/** The small gateway that is an example, and which clients reach without a proxy in front. */
export function hyperGateway(issuer, upstream) {
  return listening(join(examples, 'hyper_gateway'), [issuer, AUDIENCE, upstream, '127.0.0.1:0'], exampleUrl);
}

/** `dpop-gateway` as the forward authentication of a proxy. */
export function forwardAuth(issuer, { proxy, from = '127.0.0.1', pathPrefix, ...options }) {
  return program('forward_auth', issuer, options, [
    '[[forward_auth]]',
    'address = "127.0.0.1:0"',
    `asked_by = "${proxy === 'envoy' ? 'envoy-http' : proxy}"`,
    `from = ["${from}/32"]`,
    ...(pathPrefix ? [`path_prefix = "${pathPrefix}"`] : []),
    '[[route]]',
    'path = "/"',
  ]);
}

/** Starts `dpop-gateway` for the tokens of an issuer, whose keys are discovered; its URL is that of the listener `name`. */
async function program(name, issuer, { publicUrl, forward = [], nonces = false }, lines) {
  const configuration = [
    '[dpop]',
    `public_url = "${publicUrl}"`,
    `issuer = "${issuer}"`,
    `audience = "${AUDIENCE}"`,
    ...(nonces ? ['nonces = "generated"'] : []),
    ...lines,
    ...forward.flatMap((pair) => {
      const [claim, field] = pair.split('=');
      return ['[[identity]]', `claim = "${claim}"`, `field = "${field}"`];
    }),
  ];
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  const file = join(folder, 'gateway.toml');
  await writeFile(file, configuration.join('\n'));
  const started = await listening(process.env.INTEROP_GATEWAY, ['--config', file], (line) =>
    new RegExp(`^listening: .*\\b${name}=(http:\\S+)`).exec(line)?.[1]);
  const stop = async () => {
    await started.stop();
    await rm(folder, { recursive: true, force: true });
  };
  return { url: started.url, stop };
}

/**
 * nginx on a port, with a configuration of the folder `nginx` and other `addresses`. If a page of the guide documents a part
 * of it, that part is taken from there.
 */
export async function nginx(name, port, addresses, { documentedIn, without } = {}) {
  const here = (path) => readFile(new URL(path, import.meta.url), 'utf8');
  let configuration = await here(`nginx/${name}.conf`);
  if (documentedIn) {
    const documented = /```nginx\n(.*?)```/s.exec(await here(`../../${documentedIn}`))[1]
      .replace(/^server \{/m, '$&\n    listen 127.0.0.1:{{port}};');
    configuration = configuration.replace('{{documented}}', () => documented);
  }
  for (const [from, to] of Object.entries({ ...addresses, ...(without && { [without]: '' }) })) {
    if (!configuration.includes(from)) throw new Error(`${documentedIn ?? name} does not have ${from}`);
    configuration = configuration.replaceAll(from, to.replace('http://', ''));
  }
  configuration = configuration.replaceAll('{{port}}', port);
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  await writeFile(join(folder, 'nginx.conf'), configuration);

  const parameters = ['-p', folder, '-e', 'stderr', '-c', 'nginx.conf', '-g', 'daemon off;'];
  const { stop } = await listenAt(port, folder, 'nginx', parameters);
  return { url: `http://127.0.0.1:${port}`, stop };
}

/** A Redis server without persistence. */
export async function redisServer() {
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  const { stop } = await listenAt(port, folder, 'redis-server', [
    '--bind', '127.0.0.1',
    '--port', `${port}`,
    '--dir', folder,
    '--save', '',
    '--appendonly', 'no',
  ]);
  return { url: `redis://127.0.0.1:${port}`, stop };
}

/** Starts a program that listens at a port. `stop` ends it and removes its folder. */
export async function listenAt(port, folder, command, parameters) {
  const child = run(command, parameters);
  const stop = async () => {
    child.process.kill('SIGTERM');
    await child.ended;
    await rm(folder, { recursive: true });
  };
  let ended = false;
  child.ended.then(() => { ended = true; });
  while (!ended) {
    if (await accepts(port)) {
      child.begun();
      return { stop };
    }
    await delay(20);
  }
  await stop();
  throw new Error(`${command} does not listen: ${child.complaints()}`);
}

/** A port that is free, as far as one can know. */
export async function freePort() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function accepts(port) {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Runs our client to its end: its exit code, and what it printed of its key and of each call. */
export async function ourClient({
  issuer, resource, clientId = 'service', login, alg, count = 1, pause, post, indicator, scope,
}) {
  const child = run(join(examples, 'client'), [
    '--issuer', issuer,
    '--client-id', clientId,
    ...(login ? ['--login', login] : ['--client-secret', 'service-secret']),
    '--resource', resource,
    '--count', `${count}`,
    ...(pause ? ['--pause', `${pause}`] : []),
    ...(post ? ['--post', `${post}`] : []),
    ...(alg ? ['--alg', alg] : []),
    ...(indicator ? ['--resource-indicator', indicator] : []),
    ...(scope ? ['--scope', scope] : []),
  ]);
  const lines = [];
  for await (const line of createInterface({ input: child.process.stdout })) {
    lines.push(JSON.parse(line));
  }
  const [code] = await child.ended;
  if (code !== 0) console.error(`client ended with ${code}: ${child.complaints()}`);
  const [key, ...calls] = lines;
  return { code, key, calls };
}

/** Runs the client of fifteen lines, which prints a status and a body. */
export async function shortClient({ issuer, url }) {
  const child = run(join(examples, 'reqwest'), [url], {
    ISSUER: issuer, CLIENT_ID: 'service', CLIENT_SECRET: 'service-secret', API: new URL(url).origin,
  });
  const lines = [];
  for await (const line of createInterface({ input: child.process.stdout })) lines.push(line);
  const [code] = await child.ended;
  if (code !== 0) console.error(`reqwest ended with ${code}: ${child.complaints()}`);
  return lines;
}

/**
 * Runs a scenario of the MCP conformance suite with our client, for at most some seconds. Returns its checks. The suite runs the
 * client in a shell and would end only that.
 */
export function mcpConformance(scenario, patience = 30) {
  const suite = fileURLToPath(new URL('node_modules/.bin/conformance', import.meta.url));
  return mcpChecks([
    suite, 'client', '--command', `timeout ${patience} ${join(examples, 'mcp_client')}`, '--scenario', scenario,
    '--timeout', '40000',
  ], { BROWSER });
}

/** What the same suite in the folder `checkout` checks with these parameters. */
export function mcpCheckout(checkout, parameters, variables) {
  return mcpChecks([join(checkout, 'node_modules/.bin/tsx'), join(checkout, 'src/index.ts'), ...parameters], variables);
}

async function mcpChecks(parameters, variables) {
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  const child = run(process.execPath, [...parameters, '--output-dir', folder], variables);
  child.process.stdout.resume();
  await child.ended;
  const [results] = await readdir(folder, { recursive: true })
    .then((files) => files.filter((file) => file.endsWith('checks.json')));
  if (!results) throw new Error(`no results: ${child.complaints()}`);
  const checks = JSON.parse(await readFile(join(folder, results), 'utf8'));
  await rm(folder, { recursive: true });
  return checks;
}

/**
 * A server in this process, on a free port. `listen` makes its listener out of its URL, and
 * `respondWith` gives it another one. After `stop`, it can `resume` at the same port.
 */
export async function serve(listen) {
  const server = createServer();
  const resume = async (port) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  await resume(0);
  const { port } = server.address();
  const url = `http://127.0.0.1:${port}`;
  const respondWith = (listener) => server.removeAllListeners('request').on('request', listener);
  respondWith(await listen(url));
  const stop = async () => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  return { url, respondWith, stop, resume: () => resume(port) };
}

/** Starts an example that says where it listens. */
function listen(name, parameters, port = 0) {
  return listening(join(examples, name), ['--listen', `127.0.0.1:${port}`, ...parameters], exampleUrl);
}

function exampleUrl(line) {
  return /^listening on (http:\S+)$/.exec(line)?.[1];
}

/** Starts a program in whose first line `found` finds the URL where it listens. */
async function listening(command, parameters, found) {
  const child = run(command, parameters);
  const lines = createInterface({ input: child.process.stdout });
  const [line] = await Promise.race([once(lines, 'line'), child.ended]);
  const url = found(line);
  child.begun();
  const stop = () => {
    child.process.kill('SIGTERM');
    return child.ended;
  };
  if (url) return { url, stop };
  await stop();
  throw new Error(`${command} ${parameters.join(' ')} does not listen: ${child.complaints()}`);
}

/** Starts a process, which is ended unless it has `begun` or ended by itself before long. */
function run(command, parameters, variables = {}) {
  const env = { ...process.env, ...variables };
  const child = spawn(command, parameters, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { complaints += text; });
  const patience = setTimeout(() => child.kill('SIGKILL'), PATIENCE);
  const begun = () => clearTimeout(patience);
  const ended = once(child, 'close').finally(() => {
    begun();
    running.delete(child);
  });
  return { process: child, begun, ended, complaints: () => complaints };
}

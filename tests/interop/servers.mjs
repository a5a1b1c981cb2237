// Starts and stops: the examples of this crate as processes, and servers in this one.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { join } from 'node:path';

/** Where the examples are, built. */
const examples = process.env.INTEROP_EXAMPLES;
/** Milliseconds in which a server listens and a client has ended, if ever. */
const PATIENCE = 60_000;

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

/** Our resource server, for the tokens of an issuer. */
export function resourceServer({ issuer, jwks }, { nonces = false, algs, lenientTyp } = {}) {
  return listen('resource_server', [
    '--issuer', issuer,
    '--jwks', jwks,
    '--audience', AUDIENCE,
    ...(nonces ? ['--nonces'] : []),
    ...(algs ? ['--algs', algs] : []),
    ...(lenientTyp ? ['--lenient-typ'] : []),
  ]);
}

/** Runs our client to its end: its exit code, and what it printed of its key and of each call. */
export async function ourClient({ issuer, resource, alg, count = 1, indicator, scope }) {
  const child = run('client', [
    '--issuer', issuer,
    '--client-id', 'service',
    '--client-secret', 'service-secret',
    '--resource', resource,
    '--count', `${count}`,
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

/** A server in this process, on a free port. `answer` makes its listener out of its URL. */
export async function serve(answer) {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${server.address().port}`;
  server.on('request', await answer(url));
  const stop = async () => {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  return { url, stop };
}

/** Starts an example that says where it listens. */
async function listen(name, parameters) {
  const child = run(name, ['--listen', '127.0.0.1:0', ...parameters]);
  const lines = createInterface({ input: child.process.stdout });
  const [line] = await Promise.race([once(lines, 'line'), child.ended]);
  const url = /^listening on (http:\S+)$/.exec(line)?.[1];
  child.begun();
  const stop = () => {
    child.process.kill('SIGTERM');
    return child.ended;
  };
  if (url) return { url, stop };
  await stop();
  throw new Error(`${name} ${parameters.join(' ')} does not listen: ${child.complaints()}`);
}

/** Starts a process, which is ended unless it has `begun` or ended by itself before long. */
function run(name, parameters) {
  const child = spawn(join(examples, name), parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
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

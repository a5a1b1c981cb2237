// Uploads that our resource server rejects because a nonce is missing: each client must see the 401
// and its nonce, and its second try must pass with the whole body.

import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { exportJWK, calculateJwkThumbprint, generateKeyPair, SignJWT } from 'jose';

import { AUDIENCE, authorizationServer, ourClient, resourceServer, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const ISSUER = 'https://as.example.com';
const SIZES = { '1 KB': 1e3, '100 KB': 1e5, '1 MB': 1e6, '3 MB': 3e6, '10 MB': 1e7 };
/** How often each client sends each size. */
const TRIES = Number(process.env.INTEROP_UPLOADS ?? 5);

export async function uploads() {
  const clients = {
    node: [['fetch', byFetch], ['http', byHttp]],
    requests: [['requests', byPython('requests')]],
    httpx: [['httpx', byPython('httpx')]],
    curl: [['curl', byCurl([])], ['curl without Expect', byCurl(['-H', 'Expect:'])]],
  };
  for (const [software, ways] of Object.entries(clients)) {
    for (const [name, connect] of ways) {
      await scenario([software], `upload by ${name}`, (use, row) => rejectedOnce(use, row, connect));
    }
  }
  await scenario(['node'], 'upload by our client', byOurClient);
}

/** Each size, rejected without a nonce and accepted with it. */
async function rejectedOnce(use, row, connect) {
  const { url, headers } = await target(use);
  const send = await use(connect(url));
  for (const [name, size] of Object.entries(SIZES)) {
    await row(name, `${TRIES} of ${TRIES}`, () => times(async () => {
      const rejected = await send(size, await headers());
      holds('first response', [rejected.status, typeof rejected.nonce], [401, 'string']);
      const accepted = await send(size, await headers(rejected.nonce));
      holds('second response', accepted.status, 200);
      holds('bytes that arrived', JSON.parse(accepted.body).body_bytes, size);
    }));
  }
  send.done?.();
}

async function byOurClient(use, row) {
  const { issuer } = await use(authorizationServer());
  const resource = await use(resourceServer({ issuer }, { nonces: true }));
  for (const [name, post] of Object.entries(SIZES)) {
    await row(name, `${TRIES} of ${TRIES}`, () => times(async () => {
      const { code, calls } = await ourClient({ issuer, resource: `${resource.url}/protected`, post });
      holds('exit code', code, 0);
      holds('response', calls.map(({ status, body }) => [status, body.body_bytes]), [[200, post]]);
    }));
  }
}

async function times(attempt) {
  let succeeded = 0;
  for (let i = 0; i < TRIES; i += 1) {
    try {
      await attempt();
      succeeded += 1;
    } catch (error) {
      console.error(error);
    }
  }
  return `${succeeded} of ${TRIES}`;
}

/** Our resource server with nonces, and the header fields of a request to it. */
async function target(use) {
  const issuerKeys = await generateKeyPair('ES256');
  const jwks = await use(serve(() => async (_, response) => {
    response.end(JSON.stringify({ keys: [{ ...(await exportJWK(issuerKeys.publicKey)), kid: '1' }] }));
  }));
  const resource = await use(resourceServer({ issuer: ISSUER, jwks: jwks.url }, { nonces: true }));
  const url = `${resource.url}/protected`;

  const { privateKey, publicKey } = await generateKeyPair('ES256');
  const jwk = await exportJWK(publicKey);
  const now = () => Math.floor(Date.now() / 1000);
  const token = await new SignJWT({
    iss: ISSUER, aud: AUDIENCE, sub: 'somebody', client_id: 'any', jti: randomUUID(),
    iat: now(), exp: now() + 3600, cnf: { jkt: await calculateJwkThumbprint(jwk) },
  }).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: '1' }).sign(issuerKeys.privateKey);
  const ath = createHash('sha256').update(token).digest('base64url');

  const headers = async (nonce) => {
    const dpop = await new SignJWT({ jti: randomUUID(), htm: 'POST', htu: url, iat: now(), ath, nonce })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk })
      .sign(privateKey);
    return { authorization: `DPoP ${token}`, dpop, 'content-type': 'application/octet-stream' };
  };
  return { url, headers };
}

async function byFetch(url) {
  const send = async (size, headers) => {
    const body = Buffer.alloc(size, 'x');
    const response = await fetch(url, { method: 'POST', headers, body });
    const nonce = response.headers.get('dpop-nonce') ?? undefined;
    return { status: response.status, nonce, body: await response.text() };
  };
  return Object.assign(send, { stop() {} });
}

/** One connection for everything: it must survive every rejection. */
async function byHttp(url) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const sockets = new Set();
  const send = async (size, headers) => {
    const sent = request(url, { method: 'POST', agent, headers: { ...headers, 'content-length': size } });
    sent.on('socket', (socket) => sockets.add(socket));
    sent.end(Buffer.alloc(size, 'x'));
    const [response] = await once(sent, 'response');
    let body = '';
    for await (const part of response.setEncoding('utf8')) body += part;
    return { status: response.statusCode, nonce: response.headers['dpop-nonce'], body };
  };
  const done = () => holds('connections', sockets.size, 1);
  return Object.assign(send, { done, stop: () => agent.destroy() });
}

const byPython = (library) => async (url) => {
  const script = new URL('uploads.py', import.meta.url).pathname;
  const child = spawn(process.env.INTEROP_PYTHON, [script, library, url], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const send = async (size, headers) => {
    child.stdin.write(`${JSON.stringify({ size, headers })}\n`);
    const { value } = await lines.next();
    return JSON.parse(value);
  };
  const stop = async () => {
    child.stdin.end();
    if (child.exitCode === null) await once(child, 'exit');
  };
  return Object.assign(send, { stop });
};

const byCurl = (parameters) => async (url) => {
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  const send = async (size, headers) => {
    const file = join(folder, `${size}`);
    await writeFile(file, Buffer.alloc(size, 'x'));
    const fields = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
    const { stdout, stderr, status: code } = spawnSync('curl', [
      '-sS', '--http1.1', ...parameters, ...fields, '--data-binary', `@${file}`,
      '-w', '\n%{http_code} %header{dpop-nonce}', url,
    ], { encoding: 'utf8' });
    holds('exit code of curl', [code, stderr], [0, '']);
    const [, body, status, nonce] = /^(.*)\n(\d+) (\S*)$/s.exec(stdout);
    return { status: Number(status), nonce: nonce || undefined, body };
  };
  return Object.assign(send, { stop: () => rm(folder, { recursive: true }) });
};

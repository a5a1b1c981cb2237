// nginx in front of dpop-gateway, as forward authentication and as a reverse proxy, and behind them an application that
// believes whatever header fields it gets.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';

import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import * as oauth from 'oauth4webapi';

import { AUDIENCE, forwardAuth, freePort, gateway, hyperGateway, nginx, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const SOFTWARE = ['nginx', 'oauth4webapi'];
const BARE = 'DPoP algs="ES256 ES384 PS256 Ed25519 EdDSA"';
/** Milliseconds after which what should have streamed has been held back. */
const PATIENCE = 20_000;

/** One field in the spellings that applications take for one. */
const ALIASES = [
  'X-Auth-Subject', 'x-auth-subject', 'X_Auth_Subject', 'X-Auth_Subject', 'X.Auth.Subject',
];

export async function proxies() {
  await scenario(SOFTWARE, 'auth_request', asked);
  await scenario(SOFTWARE, 'auth_request, spoofed fields', askedWithSpoofedFields);
  await scenario(SOFTWARE, 'auth_request, nonces on', (use, row) =>
    nonces(behindAuthRequest, use, row));
  await scenario(['oauth4webapi'], 'forward_auth', described);
  await scenario(SOFTWARE, 'gateway', passedOn);
  await scenario(SOFTWARE, 'gateway, spoofed fields', passedOnWithSpoofedFields);
  await scenario(SOFTWARE, 'gateway, nonces on', (use, row) => nonces(behindGateway, use, row));
  await scenario(SOFTWARE, 'gateway, streams', streams);
  await scenario(SOFTWARE, 'gateway, the service is broken', broken);
  await scenario(['oauth4webapi'], 'hyper_gateway', passedOnByTheExample);
}

/** nginx asks the forward authentication, and then the application. */
async function behindAuthRequest(use, options = {}) {
  const client = await holder(use);
  const app = await application(use);
  const port = await freePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  const auth = await use(forwardAuth(client.issuer, {
    publicUrl, proxy: 'nginx', from: '127.0.0.2', forward: ['sub=X-Auth-Subject'], ...options,
  }));
  const addresses = { '127.0.0.1:9001': auth.url, '127.0.0.1:3000': app.url };
  await use(nginx('forward_auth', port, addresses, {
    documentedIn: 'docs/guide/forward-authentication.md',
  }));
  return { client, app, auth, url: publicUrl };
}

/** nginx strips `/api` and asks the gateway, which asks the application. */
async function behindGateway(use, options = {}) {
  const client = await holder(use);
  const app = await application(use);
  const port = await freePort();
  const ours = await use(gateway(client.issuer, {
    publicUrl: `http://127.0.0.1:${port}/api`,
    upstream: app.url,
    forward: ['sub=X-Auth-Subject', 'tenant=X-Auth-Tenant', 'jkt=X-Auth-Key'],
    ...options,
  }));
  await use(nginx('gateway', port, { '127.0.0.1:8080': ours.url }));
  return { client, app, gateway: ours, url: `http://127.0.0.1:${port}/api` };
}

async function asked(use, row) {
  const { client, app, auth, url } = await behindAuthRequest(use);
  for (const [method, path, body] of [
    ['GET', '/orders'],
    ['GET', '/orders?of=me&page=2'],
    ['POST', '/orders', 'one'],
    ['DELETE', '/a%2Fb//c/~d'],
  ]) {
    await row(`${method} ${path}`, '200', async () => {
      const response = await client.visit(url + path, { method, body });
      const { headers, ...seen } = app.last();
      holds('seen by the application', seen, { method, url: path, body: digest(body) });
      holds('subject', headers['x-auth-subject'], 'somebody');
      holds('credentials', [headers.authorization, headers.dpop], [undefined, undefined]);
      return response;
    });
  }
  await rejections(row, { client, app, url });
  // nginx would make a 500 of 400.
  await row('a malformed Authorization field', '401 invalid_request', () =>
    rejectedBefore(app, () => send(`${url}/orders`, { headers: { authorization: 'DPoP' } })));

  const directly = (headers) => send(auth.url, {
    headers: { 'x-original-method': 'GET', 'x-original-uri': '/orders', ...headers },
  });
  await row('asked by another than nginx', '403', async () => {
    const response = await directly(await client.credentials(`${url}/orders`));
    holds('challenge', response.headers.get('www-authenticate'), null);
    return response;
  });
  await row('a request that does not come from nginx, which uses up no proof', '200', async () => {
    const headers = await client.credentials(`${url}/orders`);
    holds('directly', (await directly(headers)).status, 403);
    return send(`${url}/orders`, { headers });
  });
  await row('a subject that cannot be a field', '500', () =>
    rejectedBefore(app, () => client.visit(`${url}/orders`, { claims: { sub: 'Zoë' } })));
  await row('the gateway is down', '500', async () => {
    await auth.stop();
    return rejectedBefore(app, () => client.visit(`${url}/orders`));
  });
}

async function askedWithSpoofedFields(use, row) {
  const { client, app, url } = await behindAuthRequest(use);
  const rejected = (name, sent, options) => row(name, '401 invalid_dpop_proof', () =>
    rejectedBefore(app, () => client.visit(sent, options)));
  const elsewhere = ['X-Original-URI', 'X_Original_URI', 'X-Forwarded-Uri', 'X-Rewrite-URL'];
  for (const field of elsewhere) {
    await rejected(`a proof for another path, with ${field}`, `${url}/admin`, {
      signed: `${url}/orders`, headers: { [field]: '/orders' },
    });
  }
  for (const field of ['X-Original-Method', 'X_Original_Method', 'X-Forwarded-Method']) {
    await rejected(`a proof for another method, with ${field}`, `${url}/orders`, {
      method: 'DELETE', signedMethod: 'GET', headers: { [field]: 'GET' },
    });
  }
  for (const field of ['X-Forwarded-Host', 'Forwarded', 'Host']) {
    await rejected(`a proof for another host, with ${field}`, `${url}/orders`, {
      signed: 'http://other.example.com/orders',
      headers: { [field]: field === 'Forwarded' ? 'host=other.example.com' : 'other.example.com' },
    });
  }
  await row('a good proof with all of them', '200', () => {
    const headers = { 'X-Original-Method': 'PUT', 'X-Forwarded-Method': 'PUT' };
    for (const field of elsewhere) headers[field] = '/admin';
    return client.visit(`${url}/orders`, { headers });
  });
  for (const field of ALIASES) {
    await row(`${field} of the client's`, '200', async () => {
      const response = await client.visit(`${url}/orders`, { headers: { [field]: 'admin' } });
      holds('subject', received(app, 'X-Auth-Subject'), ['somebody']);
      return response;
    });
  }

  const without = await behindAuthRequest(use, { forward: ['tenant=X-Auth-Subject'] });
  for (const field of ALIASES) {
    await row(`${field} of the client's, where the claim is absent`, '200', async () => {
      const headers = { [field]: 'admin' };
      const response = await without.client.visit(`${without.url}/orders`, { headers });
      holds('forwarded', received(without.app, 'X-Auth-Subject'), []);
      return response;
    });
  }
}

/** What the other proxies send, without those proxies. */
async function described(use, row) {
  const client = await holder(use);
  const publicUrl = 'http://127.0.0.1:1';
  const start = (proxy, pathPrefix) => use(forwardAuth(client.issuer, {
    publicUrl, proxy, pathPrefix, forward: ['sub=X-Auth-Subject', 'tenant=X-Auth-Tenant'],
  }));
  const asks = async (auth, path, description, options) => {
    const headers = await client.credentials(`${publicUrl}/orders`, options);
    return send(auth.url + path, { ...options, headers: { ...headers, ...description } });
  };
  const forwarded = { 'X-Forwarded-Method': 'GET', 'X-Forwarded-Uri': '/orders?page=2' };
  const original = { 'X-Original-Method': 'GET', 'X-Original-URI': '/orders?page=2' };

  for (const [proxy, fields, others] of [
    ['traefik', forwarded, original],
    ['caddy', forwarded, original],
    ['nginx', original, forwarded],
  ]) {
    const auth = await start(proxy);
    const [method, uri] = Object.keys(fields);
    await row(`as ${proxy} asks`, '200', async () => {
      const response = await asks(auth, '/', fields);
      const field = (name) => response.headers.get(name);
      holds('forwarded', [field('x-auth-subject'), field('x-auth-tenant')], ['somebody', null]);
      return response;
    });
    // Where the proxy is configured in another way, and where the client's request is malformed. nginx knows only 401 and 403.
    const [misconfigured, malformed] = ['500', proxy === 'nginx' ? '403' : '400'];
    for (const [name, outcome, description] of [
      ['no method', misconfigured, { [uri]: '/orders' }],
      ['no URI', misconfigured, { [method]: 'GET' }],
      ['the method twice', misconfigured, { ...fields, [method]: ['GET', 'GET'] }],
      ['the URI twice', misconfigured, { ...fields, [uri]: ['/orders', '/orders'] }],
      ['in the fields of another proxy', misconfigured, others],
      ['a malformed method', malformed, { ...fields, [method]: 'GET, GET' }],
      ['a malformed URI', malformed, { ...fields, [uri]: '/orders /orders' }],
      ['a URI that is no path', malformed, { ...fields, [uri]: `${publicUrl}/orders` }],
      ['another method', '401 invalid_dpop_proof', { ...fields, [method]: 'PUT' }],
      ['another path', '401 invalid_dpop_proof', { ...fields, [uri]: '/admin' }],
    ]) {
      await row(`as ${proxy} asks: ${name}`, outcome, () => asks(auth, '/orders', description));
    }
  }

  const auth = await start('envoy', '/dpop');
  await row('as envoy asks', '200', async () => {
    const response = await asks(auth, '/dpop/orders?page=2', {}, { method: 'PUT' });
    holds('forwarded', response.headers.get('x-auth-subject'), 'somebody');
    return response;
  });
  for (const [name, outcome, path, description] of [
    ['no prefix', '500', '/orders', {}],
    ['another prefix', '500', '/dpopx/orders', {}],
    ['another path', '401 invalid_dpop_proof', '/dpop/admin', { ...forwarded, ...original }],
  ]) {
    await row(`as envoy asks: ${name}`, outcome, () => asks(auth, path, description));
  }
}

async function passedOn(use, row) {
  const { client, app, url, gateway: ours } = await behindGateway(use);
  const large = randomBytes(4 * 1024 * 1024);
  for (const [method, path, body] of [
    ['GET', '/orders'],
    ['GET', '/orders?of=me&page=2'],
    ['DELETE', '/a%2Fb//c/~d'],
    ['GET', '/'],
    ['POST', '/orders', 'one'],
    ['PUT', '/4%20MiB', large],
  ]) {
    await row(`${method} ${path}`, '200', async () => {
      const response = await client.visit(url + path, { method, body, claims: { tenant: 7 } });
      const { headers, ...seen } = app.last();
      holds('seen by the application', seen, { method, url: path, body: digest(body) });
      holds('forwarded', [headers['x-auth-subject'], headers['x-auth-tenant'], headers['x-auth-key']],
        ['somebody', '7', client.jkt]);
      holds('credentials', [headers.authorization, headers.dpop], [undefined, undefined]);
      holds('Host', headers.host, new URL(app.url).host);
      return response;
    });
  }
  await row('4 MiB in the response', '200', async () => {
    const response = await client.visit(`${url}/large`);
    holds('body', digest(Buffer.from(await response.clone().arrayBuffer())), digest(app.large));
    return response;
  });
  await row('HEAD', '200', async () => {
    const response = await client.visit(`${url}/large`, { method: 'HEAD' });
    holds('Content-Length', response.headers.get('content-length'), `${app.large.length}`);
    return response;
  });
  await row('GET over HTTP/2, without nginx', '200', async () => {
    const status = await overHttp2(ours.url, await client.credentials(`${url}/orders`));
    holds('subject', received(app, 'X-Auth-Subject'), ['somebody']);
    return status;
  });
  await rejections(row, { client, app, url });
  await row('a path without the prefix that nginx strips', '401 invalid_dpop_proof', () =>
    rejectedBefore(app, () =>
      client.visit(`${url}/orders`, { signed: `${new URL(url).origin}/orders` })));
  for (const [name, claims] of [
    ['a subject that is not ASCII', { sub: 'Zoë' }],
    ['a subject with a line break', { sub: 'somebody\r\nX-Auth-Tenant: 1' }],
    ['a subject with a space at its end', { sub: 'somebody ' }],
    ['an empty subject', { sub: '' }],
    ['a list', { tenant: [1, 2] }],
    ['a number with a fraction', { tenant: 1.5 }],
    ['a number too large to be exact', { tenant: 1e30 }],
  ]) {
    await row(`${name}, which cannot be a field`, '500', () =>
      rejectedBefore(app, () => client.visit(`${url}/orders`, { claims })));
  }
  const keeping = await behindGateway(use, { keepAuthorization: true });
  await row('--keep-authorization', '200', async () => {
    const response = await keeping.client.visit(`${keeping.url}/orders`);
    const { headers } = keeping.app.last();
    holds('Authorization', headers.authorization?.startsWith('DPoP '), true);
    holds('DPoP', headers.dpop, undefined);
    return response;
  });
}

async function passedOnWithSpoofedFields(use, row) {
  const { client, app, url } = await behindGateway(use);
  for (const field of ALIASES) {
    await row(`${field} of the client's`, '200', async () => {
      const headers = { [field]: ['admin', 'root'] };
      const response = await client.visit(`${url}/orders`, { headers });
      holds('subject', received(app, 'X-Auth-Subject'), ['somebody']);
      return response;
    });
    const absent = field.replace(/subject/i, 'Tenant');
    await row(`${absent} of the client's, where the claim is absent`, '200', async () => {
      const response = await client.visit(`${url}/orders`, { headers: { [absent]: '1' } });
      holds('tenant', received(app, 'X-Auth-Tenant'), []);
      return response;
    });
  }
  const { gateway: ours, ...direct } = await behindGateway(use);
  await row('Connection names our field, without nginx', '200', async () => {
    const headers = await direct.client.credentials(`${direct.url}/orders`);
    const connection = 'close, X-Auth-Subject, X-Own';
    const response = await send(`${ours.url}/orders`, {
      headers: { ...headers, connection, 'X-Own': '1', 'Keep-Alive': '1', 'Proxy-Connection': '1' },
    });
    holds('subject', received(direct.app, 'X-Auth-Subject'), ['somebody']);
    for (const field of ['X-Own', 'Keep-Alive', 'Proxy-Connection']) {
      holds(field, received(direct.app, field), []);
    }
    return response;
  });
  await row('a trailer with our field, without nginx', '200', async () => {
    const credentials = await direct.client.credentials(`${direct.url}/orders`, { method: 'POST' });
    const headers = { ...credentials, Trailer: 'X-Auth-Subject', 'Transfer-Encoding': 'chunked' };
    const request = httpRequest(`${ours.url}/orders`, { method: 'POST', headers });
    request.addTrailers({ 'X-Auth-Subject': 'admin' });
    request.end('one');
    const [response] = await once(request, 'response');
    response.resume();
    holds('body', direct.app.last().body, digest('one'));
    holds('trailers', direct.app.trailers(), {});
    return response.statusCode;
  });
  for (const field of ['X-Original-URI', 'X-Forwarded-Uri', 'X-Forwarded-Prefix']) {
    await row(`a proof for another path, with ${field}`, '401 invalid_dpop_proof', () =>
      rejectedBefore(app, () => client.visit(`${url}/admin`, {
        signed: `${url}/orders`, headers: { [field]: '/orders' },
      })));
  }
  for (const field of ['X-HTTP-Method-Override', 'X-Original-Method', 'X-Forwarded-Method']) {
    await row(`a proof for another method, with ${field}`, '401 invalid_dpop_proof', () =>
      rejectedBefore(app, () => client.visit(`${url}/orders`, {
        method: 'DELETE', signedMethod: 'GET', headers: { [field]: 'GET' },
      })));
  }
  for (const field of ['X-Forwarded-Host', 'Host']) {
    await row(`a proof for another host, with ${field}`, '401 invalid_dpop_proof', () =>
      rejectedBefore(app, () => client.visit(`${url}/orders`, {
        signed: 'http://other.example.com/api/orders', headers: { [field]: 'other.example.com' },
      })));
  }
}

/** What is rejected in front of any application, and how the client hears of it. */
async function rejections(row, { client, app, url }) {
  await row('sent again as it was', '401 invalid_dpop_proof', async () => {
    const headers = await client.credentials(`${url}/orders`);
    holds('the first time', (await send(`${url}/orders`, { headers })).status, 200);
    return rejectedBefore(app, async () => {
      const response = await send(`${url}/orders`, { headers });
      const challenge = response.headers.get('www-authenticate');
      holds('algs', challenge.endsWith(BARE.replace('DPoP ', '')), true);
      return response;
    });
  });
  await row('no token', '401', () => rejectedBefore(app, async () => {
    const response = await send(`${url}/orders`);
    holds('challenge', response.headers.get('www-authenticate'), BARE);
    return response;
  }));
  await row('the token as Bearer', '401 invalid_token', () => rejectedBefore(app, async () => {
    const { authorization } = await client.credentials(`${url}/orders`);
    const bearer = authorization.replace('DPoP', 'Bearer');
    return send(`${url}/orders`, { headers: { authorization: bearer } });
  }));
  await row('no proof', '401 invalid_dpop_proof', () => rejectedBefore(app, async () => {
    const { authorization } = await client.credentials(`${url}/orders`);
    return send(`${url}/orders`, { headers: { authorization } });
  }));
  await row('a token of another issuer', '401 invalid_token', () => rejectedBefore(app, () =>
    client.visit(`${url}/orders`, { claims: { iss: 'https://other.example.com' } })));
}

async function nonces(behind, use, row) {
  const { client, app, url } = await behind(use, { nonces: true });
  await row('the demand', '401 use_dpop_nonce', () => rejectedBefore(app, async () => {
    const headers = await client.credentials(`${url}/orders`);
    const response = await send(`${url}/orders`, { headers });
    holds('DPoP-Nonce', response.headers.get('dpop-nonce')?.length > 0, true);
    holds('Cache-Control', response.headers.get('cache-control'), 'no-store');
    return response;
  }));
  await row('met', '200', async () => {
    let demands = 0;
    for (;;) {
      try {
        const response = await client.visit(`${url}/orders`);
        holds('demands for a nonce', demands, 1);
        holds('Cache-Control', response.headers.get('cache-control'), null);
        return response;
      } catch (error) {
        if (!oauth.isDPoPNonceError(error) || demands > 0) throw error;
        demands += 1;
      }
    }
  });
}

async function streams(use, row) {
  const { client, app, url } = await behindGateway(use);
  await row('a response whose second half waits for its first to arrive', '200', async () => {
    const headers = await client.credentials(`${url}/halves`);
    const request = httpRequest(`${url}/halves`, { headers }).end();
    const [response] = await within(once(request, 'response'));
    const [first] = await within(once(response, 'data'));
    holds('first', `${first}`, 'first');
    app.release();
    const [second] = await within(once(response, 'data'));
    holds('second', `${second}`, 'second');
    return response.statusCode;
  });
  await row('a request whose second half waits for its first to arrive', '200', async () => {
    const headers = await client.credentials(`${url}/orders`, { method: 'POST' });
    const arrived = app.arrival();
    const request = httpRequest(`${url}/orders`, { method: 'POST', headers });
    request.write('first');
    holds('first', await within(arrived), 'first');
    request.end('second');
    const [response] = await within(once(request, 'response'));
    response.resume();
    holds('body', app.last().body, digest('firstsecond'));
    return response.statusCode;
  });
  await row('a client that goes away, of which the service hears', 'closed', async () => {
    const headers = await client.credentials(`${url}/halves`);
    const request = httpRequest(`${url}/halves`, { headers }).end();
    request.on('error', () => {});
    const [response] = await within(once(request, 'response'));
    await within(once(response, 'data'));
    request.destroy();
    return within(app.abandoned());
  });
}

async function broken(use, row) {
  const unreachable = await behindGateway(use, { upstream: `http://127.0.0.1:${await freePort()}` });
  await row('no one listens', '502', () => unreachable.client.visit(`${unreachable.url}/orders`));
  const { client, url } = await behindGateway(use, { timeout: 1 });
  await row('no response', '504', () => client.visit(`${url}/silent`));
  await row('hangs up', '502', () => client.visit(`${url}/hangs-up`));
  await row('switches protocols unasked', '502', () => client.visit(`${url}/switches`));
}

async function passedOnByTheExample(use, row) {
  const client = await holder(use);
  const app = await application(use);
  const { url } = await use(hyperGateway(client.issuer, app.url));
  await row('POST', '200', async () => {
    const response = await client.visit(`${url}/a%2Fb?of=me`, { method: 'POST', body: 'one' });
    const { headers, ...seen } = app.last();
    holds('seen by the application', seen, { method: 'POST', url: '/a%2Fb?of=me', body: digest('one') });
    holds('credentials', [headers.authorization, headers.dpop], [undefined, undefined]);
    holds('Host', headers.host, new URL(app.url).host);
    return response;
  });
  for (const field of ALIASES) {
    await row(`${field} of the client's`, '200', async () => {
      const headers = { [field]: ['admin', 'root'], connection: 'close, X-Auth-Subject' };
      const response = await client.visit(`${url}/orders`, { headers });
      holds('subject', received(app, 'X-Auth-Subject'), ['somebody']);
      return response;
    });
  }
  await row('no proof', '401 invalid_dpop_proof', () => rejectedBefore(app, async () => {
    const { authorization } = await client.credentials(`${url}/orders`);
    return send(`${url}/orders`, { headers: { authorization } });
  }));
  await row('switches protocols unasked', '502', () => client.visit(`${url}/switches`));
}

/** Who holds a token, and the issuer of it, which is nothing but its metadata and keys. */
export async function holder(use) {
  const { privateKey, publicKey } = await generateKeyPair('ES256');
  const jwk = { ...(await exportJWK(publicKey)), kid: '1' };
  const { url: issuer } = await use(serve((url) => (request, response) => {
    const documents = {
      '/.well-known/oauth-authorization-server': { issuer: url, jwks_uri: `${url}/jwks` },
      '/jwks': { keys: [jwk] },
    };
    response.end(JSON.stringify(documents[request.url]));
  }));
  const DPoP = oauth.DPoP({ client_id: 'any' }, await oauth.generateKeyPair('ES256'));
  const jkt = await DPoP.calculateThumbprint();

  const token = (claims) => {
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT({
      iss: issuer, aud: AUDIENCE, sub: 'somebody', client_id: 'any', jti: crypto.randomUUID(),
      iat: now, exp: now + 60, cnf: { jkt }, ...claims,
    }).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: '1' }).sign(privateKey);
  };
  /**
   * What the library makes of a token and a key, sent with other `headers`, and perhaps with
   * another method or to another URL than those that were `signed`.
   */
  const visit = async (url, {
    method = 'GET', body, headers, claims, signed = url, signedMethod = method, by = send,
  } = {}) => oauth.protectedResourceRequest(
    await token(claims), signedMethod, new URL(signed), undefined, undefined,
    {
      DPoP,
      [oauth.allowInsecureRequests]: true,
      [oauth.customFetch]: (_, init) =>
        by(url, { method, body, headers: { ...init.headers, ...headers } }),
    },
  );
  /** The header fields of a request that is not sent. */
  const credentials = async (url, options) => {
    let sent;
    const by = (_, { headers }) => {
      sent = headers;
      return new Response();
    };
    await visit(url, { ...options, by });
    return sent;
  };
  return { issuer, jkt, visit, credentials };
}

/** An application that remembers what it was asked. */
export async function application(use) {
  const seen = [];
  const large = randomBytes(4 * 1024 * 1024);
  const arrival = waiting();
  const release = waiting();
  const abandoned = waiting();
  const special = {
    '/large': (_, response) => response.setHeader('content-length', large.length).end(large),
    '/halves': async (_, response) => {
      response.write('first');
      response.on('close', () => abandoned.now('closed'));
      await release.then();
      response.end('second');
    },
    '/silent': () => {},
    '/hangs-up': (request) => request.socket.destroy(),
    '/switches': (request) => request.socket.end(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n',
    ),
  };
  const server = await use(serve(() => async (request, response) => {
    const { method, url, headers, rawHeaders } = request;
    const body = createHash('sha256');
    for await (const part of request) {
      body.update(part);
      arrival.now(`${part}`);
    }
    const { trailers } = request;
    seen.push({ method, url, headers, rawHeaders, trailers, body: body.digest('hex') });
    if (special[url]) special[url](request, response);
    else response.end('done');
  }));
  return {
    url: server.url,
    large,
    requests: () => seen.length,
    last: () => {
      const { method, url, headers, body } = seen.at(-1);
      return { method, url, headers, body };
    },
    raw: () => seen.at(-1).rawHeaders,
    trailers: () => ({ ...seen.at(-1).trailers }),
    arrival: () => arrival.then(),
    abandoned: () => abandoned.then(),
    release: () => release.now(),
  };
}

/** The values of a field at the application, in any of its spellings. */
export function received(app, field) {
  const folded = (name) => name.toLowerCase().replace(/[^a-z0-9]/g, '_');
  const raw = app.raw();
  return raw.filter((_, i) => i % 2 === 1 && folded(raw[i - 1]) === folded(field));
}

/** A rejection that the application hears nothing of. */
export async function rejectedBefore(app, attempt) {
  const before = app.requests();
  try {
    return await attempt();
  } finally {
    holds('requests at the application', app.requests(), before);
  }
}

/** One request on a connection of its own. A field with a list of values is sent as often. */
async function send(url, { method = 'GET', headers = {}, body } = {}) {
  const request = httpRequest(url, { method, headers, agent: false });
  request.end(body);
  const [response] = await within(once(request, 'response'));
  const parts = [];
  for await (const part of response) parts.push(part);
  const fields = Object.entries(response.headersDistinct).flatMap(([name, values]) =>
    values.map((value) => [name, value]));
  return new Response(Buffer.concat(parts), { status: response.statusCode, headers: fields });
}

/** The status of a request with prior knowledge of HTTP/2. */
async function overHttp2(url, headers) {
  const session = connectHttp2(url);
  try {
    const { authorization, dpop } = headers;
    const stream = session.request({ ':path': '/orders', authorization, dpop });
    const [response] = await within(once(stream, 'response'));
    return response[':status'];
  } finally {
    session.close();
  }
}

function digest(body = '') {
  return createHash('sha256').update(body).digest('hex');
}

/** Something that will be, and that may be awaited before and after. */
function waiting() {
  let now;
  const promise = new Promise((resolve) => { now = resolve; });
  return { now, then: () => promise };
}

function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('nothing came')), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

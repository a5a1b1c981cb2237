// @atproto/oauth-provider as an authorization server and as a resource server, with nonces that it replaces every second, and
// @atproto/oauth-client-node as a client of our resource server.

import { createHash, randomBytes } from 'node:crypto';

import { NodeOAuthClient, requestLocalLock } from '@atproto/oauth-client-node';
import { oauthMiddleware } from '@atproto/oauth-provider/middleware';
import { JoseKey, OAuthProvider } from '@atproto/oauth-provider/provider';
import { decodeJwt } from 'jose';

import { Oauth4webapi } from './libraries.mjs';
import { AUDIENCE, BROWSER, ourClient, resourceServer, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const PROVIDER = '@atproto/oauth-provider';
/** The user. The `aud` of tokens is the user's server. */
const ACCOUNT = { did: 'did:plc:ewvi7nxzyoun6zhxrhs64oiz', pds: AUDIENCE, email: 'a@example.com', emailVerified: true };
/** A native app by the rules of atproto: its identifier says everything. Any port may follow. */
const CALLBACK = 'http://127.0.0.1/callback';
const APP = `http://localhost?${new URLSearchParams({ redirect_uri: CALLBACK })}`;
/** Milliseconds after which a nonce is no longer the next one. This is the least that the package accepts. */
const ROTATION = 1000;

export async function atproto() {
  await scenario([PROVIDER], 'our client, its nonces', rotation);
  await scenario([PROVIDER], 'its tokens', tokens);
  for (const nonces of [false, true]) {
    const title = `nonces ${nonces ? 'on' : 'off'}`;
    await scenario([PROVIDER], `our client and resource server, ${title}`, (use, row) =>
      renewal(nonces, use, row));
    await scenario([PROVIDER, '@atproto/oauth-client-node'], `our resource server, ${title}`, (use, row) =>
      theirClient(nonces, use, row));
  }
}

/** Its token endpoint and its resource. It accepts the nonces of the last two and of the coming second. */
async function rotation(use, row) {
  const foreign = await use(provider());
  await row('4 clients with 60 requests each, over several nonces', '200', async () => {
    const outcomes = await Promise.all(Array.from({ length: 4 }, () =>
      visit(foreign, foreign.resource, { count: 60, pause: ROTATION / 20 })));
    const { nonces, demands } = foreign.seen();
    holds('at least three nonces', nonces >= 3, true);
    // The first of each client. From then on, each response has the next one.
    holds('demands for a nonce', demands, 4);
    return [...new Set(outcomes)].join(', ');
  });
  await row('3 requests with pauses in which nonces become invalid', '200', async () => {
    const outcome = await visit(foreign, foreign.resource, { count: 3, pause: 3.2 * ROTATION });
    holds('demands for a nonce', foreign.seen().demands, 3);
    return outcome;
  });
}

/** Tokens of two seconds, which our client renews by refresh tokens that are accepted once. */
async function renewal(nonces, use, row) {
  const foreign = await use(provider({ tokenMaxAge: 2 * ROTATION }));
  const resource = await use(resourceServer(foreign, { nonces }));
  await row('4 clients with 70 requests each, over several tokens', '200', async () => {
    const outcomes = await Promise.all(Array.from({ length: 4 }, () =>
      visit(foreign, `${resource.url}/protected`, { count: 70, pause: ROTATION / 20 })));
    const { grants } = foreign.seen();
    holds('codes', grants.authorization_code, 4);
    holds('at least two refresh tokens of each', grants.refresh_token >= 8, true);
    return [...new Set(outcomes)].join(', ');
  });
}

async function tokens(use, row) {
  const foreign = await use(provider());
  const resource = await use(resourceServer(foreign));
  const url = `${resource.url}/protected`;
  await row('ES256, with its key set', '200', () => visit(foreign, url));
  await visit(foreign, foreign.resource);
  const { authorization, dpop } = foreign.seen().last;
  const token = authorization.split(' ')[1];
  const thief = await Oauth4webapi.connect(foreign.issuer, APP);
  await row('a proof by another key', '401 invalid_token', async () =>
    thief.fetch(token, await thief.key(), url));
  await row('the proof for its own resource', '401 invalid_dpop_proof', () =>
    fetch(url, { headers: { authorization, dpop } }));
  await row('as Bearer', '401 invalid_token', () => thief.fetch(token, undefined, url));
  await row('of another issuer', '401', async () => {
    const stranger = await use(provider());
    const { calls } = await ourClient({ ...app(stranger), resource: url });
    return `${calls[0].status} ${calls[0].body}`.trim();
  });
}

/** The user's document names our resource server, whose metadata name the authorization server. */
async function theirClient(nonces, use, row) {
  const foreign = await use(provider());
  const resource = await use(resourceServer(foreign, { nonces, metadata: true }));
  // It takes the first algorithm in an order of its own that the authorization server lists, whatever the resource server does.
  await row('ES256K, which it prefers', '401 invalid_dpop_proof', async () =>
    (await logIn(resource.url)).fetchHandler('/protected'));
  const session = await logIn(resource.url, 'ES256');
  for (const method of ['GET', 'POST']) {
    await row(method, '200 200 200', async () => {
      const statuses = [];
      for (let call = 0; call < 3; call += 1) {
        const response = await session.fetchHandler('/protected?a=b', { method });
        holds('sub', (await response.json()).sub, ACCOUNT.did);
        statuses.push(response.status);
      }
      return statuses.join(' ');
    });
  }
  await row('a renewed token', '200', async () => {
    await session.getTokenSet(true);
    return session.fetchHandler('/protected');
  });
}

/** A session of @atproto/oauth-client-node for the user of the server at this URL. */
async function logIn(pds, alg) {
  const service = { id: '#atproto_pds', type: 'AtprotoPersonalDataServer', serviceEndpoint: pds };
  const didDoc = { '@context': ['https://www.w3.org/ns/did/v1'], id: ACCOUNT.did, service: [service] };
  const client = new NodeOAuthClient({
    allowHttp: true,
    clientMetadata: {
      client_id: APP,
      redirect_uris: [CALLBACK],
      scope: 'atproto',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      dpop_bound_access_tokens: true,
    },
    identityResolver: { resolve: () => ({ did: ACCOUNT.did, didDoc, handle: 'handle.invalid' }) },
    runtimeImplementation: {
      createKey: (algs) => JoseKey.generate(alg ? [alg] : algs),
      getRandomValues: randomBytes,
      digest: (bytes, { name }) => createHash(name).update(bytes).digest(),
      requestLock: requestLocalLock,
    },
    stateStore: store(),
    sessionStore: store(),
  });
  const login = await client.authorize(pds, { scope: 'atproto' });
  const { headers } = await fetch(login, { redirect: 'manual' });
  const { session } = await client.callback(new URL(headers.get('location')).searchParams);
  return session;
}

/** How our client logs a user in. */
function app({ issuer }) {
  return { issuer, clientId: APP, login: BROWSER, scope: 'atproto' };
}

/** The distinct statuses of our client's calls. */
async function visit(foreign, resource, options = {}) {
  const { code, key, calls } = await ourClient({ ...app(foreign), resource, ...options });
  holds('exit code', code, 0);
  holds('calls', calls.length, options.count ?? 1);
  for (const { body } of calls) holds('jkt', body.jkt, key.jkt);
  return [...new Set(calls.map(({ status }) => status))].join(' ');
}

/** Starts the provider. `seen` says what came since it was asked last: nonces, demands, grants, and the last request. */
async function provider({ tokenMaxAge } = {}) {
  const key = await JoseKey.generate(['ES256'], 'atproto');
  let seen;
  const forget = () => {
    const before = seen && { ...seen, nonces: seen.nonces.size };
    seen = { nonces: new Set(), demands: 0, grants: {}, last: undefined };
    return before;
  };
  forget();
  const server = await serve((issuer) => {
    const provider = new OAuthProvider({
      issuer, keyset: [key], dpopRotationInterval: ROTATION, tokenMaxAge, store: stores(),
      onTokenCreated: () => count('authorization_code'),
      onTokenRefreshed: () => count('refresh_token'),
    });
    const count = (grant) => { seen.grants[grant] = (seen.grants[grant] ?? 0) + 1; };
    const endpoints = oauthMiddleware(provider);
    return (request, response) => {
      const url = new URL(request.url, issuer);
      if (url.pathname === '/oauth/authorize') return authorize(provider, url, response);
      if (url.pathname === '/resource') return guarded(provider, url, request, response, seen);
      return endpoints(request, response);
    };
  });
  const { url } = server;
  return { ...server, issuer: url, jwks: `${url}/oauth/jwks`, resource: `${url}/resource`, seen: forget };
}

/** In place of the pages where a user logs in and agrees. */
async function authorize({ issuer, clientManager, requestManager }, { searchParams }, response) {
  const client = await clientManager.getClient(searchParams.get('client_id'));
  const requestUri = searchParams.get('request_uri');
  const device = `dev-${randomBytes(16).toString('hex')}`;
  const { parameters } = await requestManager.get(requestUri, device, client.id);
  const code = await requestManager.setAuthorized(requestUri, client, ACCOUNT, device, {});
  const callback = new URL(parameters.redirect_uri);
  callback.search = new URLSearchParams({ code, state: parameters.state, iss: issuer });
  response.writeHead(303, { location: callback.href }).end();
}

/** A resource that leaves the decision to the package. */
async function guarded(provider, url, request, response, seen) {
  const { authorization, dpop } = request.headers;
  seen.last = { authorization, dpop };
  seen.nonces.add(decodeJwt(dpop).nonce);
  response.setHeader('dpop-nonce', provider.nextDpopNonce());
  try {
    const { sub, cnf } =
      await provider.authenticateRequest(request.method, url, request.headers, { audience: [AUDIENCE] });
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ sub, jkt: cnf.jkt }));
  } catch (error) {
    if (error.error === 'use_dpop_nonce') seen.demands += 1;
    response.writeHead(401, { 'www-authenticate': error.wwwAuthenticateHeader }).end();
  }
}

/** What the package leaves to others: devices, requests and tokens, in memory. */
function stores() {
  const [requests, issued] = [new Map(), new Map()];
  const found = (id) => (issued.has(id) ? { id, account: ACCOUNT, ...issued.get(id) } : null);
  const tokenWhere = (test) => found([...issued].find(([, token]) => test(token))?.[0]);
  return {
    ...unused,
    getAccount: () => ({ account: ACCOUNT, authorizedClients: new Map() }),
    createRequest: (id, data) => void requests.set(id, data),
    readRequest: (id) => requests.get(id) ?? null,
    updateRequest: (id, data) => void Object.assign(requests.get(id), data),
    deleteRequest: (id) => void requests.delete(id),
    consumeRequestCode(code) {
      const [requestId, data] = [...requests].find(([, request]) => request.code === code) ?? [];
      return requests.delete(requestId) ? { requestId, data } : null;
    },
    createToken: (id, data, refresh) => void issued.set(id, { data, currentRefreshToken: refresh, old: [] }),
    readToken: (id) => found(id),
    deleteToken: (id) => void issued.delete(id),
    rotateToken(id, next, refresh, data) {
      const { data: before, currentRefreshToken, old } = issued.get(id);
      issued.delete(id);
      issued.set(next, {
        data: { ...before, ...data }, currentRefreshToken: refresh, old: [...old, currentRefreshToken],
      });
    },
    findTokenByRefreshToken: (token) =>
      tokenWhere(({ currentRefreshToken, old }) => [currentRefreshToken, ...old].includes(token)),
    findTokenByCode: (code) => tokenWhere(({ data }) => data.code === code),
  };
}

/** The package looks for all methods when it starts. Those of its pages are never called here. */
const unused = Object.fromEntries([
  'createAccount', 'authenticateAccount', 'setAuthorizedClient', 'upsertDeviceAccount', 'getDeviceAccount',
  'removeDeviceAccount', 'listDeviceAccounts', 'resetPasswordRequest', 'resetPasswordConfirm', 'updateEmailRequest',
  'updateEmailConfirm', 'verifyEmailRequest', 'verifyEmailConfirm', 'verifyHandleAvailability', 'updateHandle',
  'deactivateAccount', 'reactivateAccount', 'deleteAccountRequest', 'deleteAccountConfirm', 'createDevice', 'readDevice',
  'updateDevice', 'deleteDevice', 'findLexicon', 'storeLexicon', 'deleteLexicon', 'listAccountTokens',
].map((name) => [name, () => { throw new Error(`${name} is not implemented`); }]));

/** A store of the client. */
function store() {
  const map = new Map();
  return { get: (key) => map.get(key), set: (key, value) => void map.set(key, value), del: (key) => void map.delete(key) };
}

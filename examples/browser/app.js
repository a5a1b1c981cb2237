// A browser app with DPoP (RFC 9449): it logs in with an authorization code and PKCE, calls an API on
// another origin, and renews its access token with a refresh token.
//
// The sections before "This page" are what an app needs. They use the page for its settings, and call
// `showExchange` and `showNavigation`, which an app leaves out.

const setting = (name) => document.querySelector(`meta[name="${name}"]`).content;
const ISSUER = setting('issuer');
const RESOURCE = setting('resource');
const CLIENT_ID = 'browser';
const REDIRECT_URI = `${location.origin}/`;
const SCOPE = 'orders.read';

// ---- What is kept -------------------------------------------------------------------------------

// The key pair and the refresh token are in IndexedDB, so they survive a reload and all tabs share them.
// IndexedDB is the only place for the key: it stores a `CryptoKey` without showing it to scripts.
const database = new Promise((resolve, reject) => {
  const opening = indexedDB.open('dpop', 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore('session');
  opening.onsuccess = () => resolve(opening.result);
  opening.onerror = () => reject(opening.error);
});

async function stored(mode, act) {
  const transaction = (await database).transaction('session', mode);
  const request = act(transaction.objectStore('session'));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

const load = (name) => stored('readonly', (session) => session.get(name));
const save = (name, value) => stored('readwrite', (session) => session.put(value, name));
const clear = () => stored('readwrite', (session) => session.clear());

// Tabs take turns when they change the session. A refresh token is valid only once.
const alone = (change) => navigator.locks.request('session', change);

// The access token, `{ token, expires }`, is in memory only. After a reload it is renewed.
let access;

// ---- The key and its proofs ---------------------------------------------------------------------

const encoder = new TextEncoder();
const sha256 = (text) => crypto.subtle.digest('SHA-256', encoder.encode(text));
const random = (length) => base64url(crypto.getRandomValues(new Uint8Array(length)));

function base64url(bytes) {
  const base64 = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return base64.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

function createKey() {
  return alone(async () => {
    const key = await load('key');
    if (key) return key;
    const extractable = false; // of the private key; a public key is always extractable
    const usages = ['sign', 'verify'];
    const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, extractable, usages);
    await save('key', pair);
    return pair;
  });
}

async function publicJwk(key) {
  const { crv, kty, x, y } = await crypto.subtle.exportKey('jwk', key.publicKey);
  return { crv, kty, x, y };
}

/** RFC 7638: the required members, in the order of their names. */
async function thumbprint(key) {
  return base64url(await sha256(JSON.stringify(await publicJwk(key))));
}

/** RFC 9449 section 4.2. Every request needs a proof of its own. */
async function createProof(key, { method, url, accessToken, nonce, clockOffset }) {
  const { origin, pathname } = new URL(url);
  const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: await publicJwk(key) };
  const claims = {
    jti: crypto.randomUUID(),
    htm: method,
    htu: origin + pathname, // without the query
    iat: Math.floor((Date.now() + clockOffset) / 1000),
    nonce, // absent while it is undefined
    ath: accessToken && base64url(await sha256(accessToken)),
  };
  const encode = (json) => base64url(encoder.encode(JSON.stringify(json)));
  const input = `${encode(header)}.${encode(claims)}`;
  const algorithm = { name: 'ECDSA', hash: 'SHA-256' };
  const signature = await crypto.subtle.sign(algorithm, key.privateKey, encoder.encode(input));
  return `${input}.${base64url(signature)}`;
}

// ---- Requests with proofs -----------------------------------------------------------------------

// By origin: the newest nonce, and by how many milliseconds a server's clock is ahead. A nonce is valid
// only at the server that issued it.
const servers = new Map();

function serverAt(url) {
  const { origin } = new URL(url);
  if (!servers.has(origin)) servers.set(origin, { nonce: undefined, clockOffset: 0 });
  return servers.get(origin);
}

/** `fetch` with a proof, and with the access token if there is one. `body` is no stream: it may be sent twice. */
async function dpopFetch(url, { method = 'GET', headers, body } = {}, accessToken) {
  const key = await load('key');
  if (!key) throw new Error('You are not logged in.');
  const server = serverAt(url);
  const repeated = new Set();
  for (;;) {
    const dpop = await createProof(key, { method, url, accessToken, ...server });
    const authorization = accessToken && { authorization: `DPoP ${accessToken}` };
    const response = await send(url, { method, headers: { ...headers, ...authorization, dpop }, body });
    server.nonce = response.headers.get('dpop-nonce') ?? server.nonce;
    const reason = await reasonToRepeat(response, server);
    if (!reason || repeated.has(reason)) return response;
    repeated.add(reason);
  }
}

/** Why the same request may pass with a new proof: by the nonce, or by a corrected clock. */
async function reasonToRepeat(response, server) {
  const error = await errorIn(response);
  if (error === 'use_dpop_nonce' && response.headers.has('dpop-nonce')) return error;
  if (error === 'invalid_dpop_proof') {
    const clockOffset = Date.parse(response.headers.get('date')) - Date.now();
    if (Math.abs(clockOffset - server.clockOffset) > 5000) {
      server.clockOffset = clockOffset;
      return error;
    }
  }
  return undefined;
}

/** The error that the challenge of a resource server names, or the body of a token endpoint. */
async function errorIn(response) {
  if (response.ok) return undefined;
  const challenge = response.headers.get('www-authenticate') ?? '';
  const named = /\bDPoP\s.*\berror="([^"]*)"/i.exec(challenge)?.[1];
  if (named) return named;
  const body = await response.clone().json().catch(() => undefined);
  return body?.error;
}

async function send(url, { method, headers, body }) {
  const request = { method, headers, body, credentials: 'omit', redirect: 'error', cache: 'no-store' };
  let response;
  try {
    response = await fetch(url, { ...request, signal: AbortSignal.timeout(30_000) });
  } catch (cause) {
    throw new Error('No response: the server is down, or it does not allow this origin (CORS).', { cause });
  } finally {
    await showExchange(url, request, response?.clone());
  }
  return response;
}

// ---- Logging in and out, and the tokens ---------------------------------------------------------

let metadata;

/** RFC 8414. */
async function authorizationServer() {
  if (!metadata) {
    const { origin, pathname } = new URL(ISSUER);
    const url = `${origin}/.well-known/oauth-authorization-server${pathname.replace(/\/$/, '')}`;
    const found = await (await send(url, { method: 'GET' })).json();
    if (found.issuer !== ISSUER) throw new Error('These are the metadata of another issuer.');
    metadata = found;
  }
  return metadata;
}

async function logIn() {
  const { authorization_endpoint } = await authorizationServer();
  const key = await createKey();
  const state = random(16);
  const verifier = random(32);
  const parameters = {
    response_type: 'code',
    client_id: CLIENT_ID,
    redirect_uri: REDIRECT_URI,
    scope: SCOPE,
    state,
    code_challenge: base64url(await sha256(verifier)),
    code_challenge_method: 'S256',
    dpop_jkt: await thumbprint(key), // only this key can redeem the code
  };
  const url = new URL(authorization_endpoint);
  for (const name in parameters) url.searchParams.set(name, parameters[name]);
  // Of this tab, until the authorization server sends the user back.
  sessionStorage.setItem('login', JSON.stringify({ state, verifier, url }));
  location.assign(url);
}

/** Redeems the code, if this page was opened with one. */
async function finishLogIn() {
  const response = new URLSearchParams(location.search);
  if (!response.has('state')) return;
  const login = JSON.parse(sessionStorage.getItem('login'));
  sessionStorage.removeItem('login');
  // The code must not stay in the address bar, the history, or a `Referer`.
  history.replaceState(null, '', REDIRECT_URI);
  // Without these checks, another site could finish a login that it started (RFC 9700 sections 4.4 and 4.7).
  if (response.get('state') !== login?.state) throw new Error('This tab has not started this login.');
  await showNavigation(login.url, response);
  if (response.get('iss') !== ISSUER) throw new Error('Another server has responded to the login.');
  if (response.has('error')) throw new Error(`The login failed: ${response.get('error')}`);
  await alone(() => requestTokens({
    grant_type: 'authorization_code',
    code: response.get('code'),
    redirect_uri: REDIRECT_URI,
    code_verifier: login.verifier,
  }));
}

/** RFC 9449 section 5. Called by one tab at a time. */
async function requestTokens(parameters) {
  const { token_endpoint } = await authorizationServer();
  const body = new URLSearchParams({ client_id: CLIENT_ID, ...parameters });
  const response = await dpopFetch(token_endpoint, { method: 'POST', body });
  const tokens = await response.json();
  // The refresh token is used up, expired or revoked: the user must log in again.
  if (tokens.error === 'invalid_grant' && parameters.refresh_token) await clear();
  if (!response.ok) throw new Error(`No access token: ${tokens.error}`);
  // A server without DPoP issues Bearer tokens, which are bound to no key.
  if (tokens.token_type.toLowerCase() !== 'dpop') throw new Error('The access token is not bound.');
  access = { token: tokens.access_token, expires: Date.now() + tokens.expires_in * 1000 };
  if (tokens.refresh_token) await save('refresh_token', tokens.refresh_token);
  return access.token;
}

async function accessToken() {
  const isFresh = access && Date.now() < access.expires - 10_000;
  return isFresh ? access.token : renew(access?.token);
}

/** A new access token instead of `token`. */
function renew(token) {
  return alone(async () => {
    // Another call may have renewed it while this one waited.
    if (access && access.token !== token) return access.token;
    const refresh_token = await load('refresh_token');
    if (!refresh_token) throw new Error('You are not logged in.');
    return requestTokens({ grant_type: 'refresh_token', refresh_token });
  });
}

/** Calls an API. */
async function callApi(url, options) {
  const token = await accessToken();
  const response = await dpopFetch(url, options, token);
  // The token may have been revoked, or the issuer's key replaced.
  if (response.status !== 401 || (await errorIn(response)) !== 'invalid_token') return response;
  return dpopFetch(url, options, await renew(token));
}

/**
 * Without the key, this app's tokens are useless, even if someone has copied them. If the authorization
 * server has a revocation endpoint (RFC 7009), send it the refresh token first.
 */
async function logOut() {
  await alone(clear);
  access = undefined;
  servers.clear();
}

// ---- This page ----------------------------------------------------------------------------------

const element = (id) => document.getElementById(id);
let lastCall;

const actions = {
  'log-in': async () => {
    await logIn();
    return ['', 'Going to the authorization server.'];
  },
  call: async () => outcome(await callApi(RESOURCE)),
  // What a thief of the request would do.
  replay: async () => outcome(await send(RESOURCE, lastCall)),
  renew: async () => {
    await renew(access?.token);
    return ['good', 'The access token was renewed.'];
  },
  'log-out': async () => {
    await logOut();
    lastCall = undefined;
    return ['good', 'The key and the tokens are deleted.'];
  },
  finish: async () => {
    await finishLogIn();
    if (access) return ['good', 'You are logged in.'];
    return ['', (await load('refresh_token')) ? 'You are still logged in.' : 'You are not logged in.'];
  },
};

/** A class and a text for the response of the API. */
async function outcome(response) {
  const body = await response.text();
  if (response.ok) return ['good', `${response.status}: the API knows you as ${JSON.parse(body).sub}.`];
  return ['bad', `${response.status} ${(await errorIn(response)) ?? ''}`];
}

/** One action at a time. */
async function run(name) {
  for (const id in actions) if (element(id)) element(id).disabled = true;
  let result;
  try {
    result = await actions[name]();
  } catch (error) {
    result = ['bad', error.message];
  }
  [element('result').className, element('result').textContent] = result;
  await showState();
}

async function showState() {
  const [key, refreshToken] = [await load('key'), await load('refresh_token')];
  const keyText = key && `${await thumbprint(key)} (ES256, ${key.privateKey.extractable ? '' : 'not '}extractable)`;
  element('key').textContent = keyText ?? 'none';
  element('refresh-token').textContent = refreshToken ? 'bound to the key' : 'none';
  const seconds = access && Math.round((access.expires - Date.now()) / 1000);
  element('access-token').textContent = access ? `valid for ${seconds} s` : 'none';
  const nonces = [...servers].filter(([, { nonce }]) => nonce).map(([origin, { nonce }]) => `${origin}: ${cut(nonce)}`);
  element('nonces').textContent = nonces.join('\n') || 'none';
  element('log-in').disabled = Boolean(refreshToken);
  element('call').disabled = element('renew').disabled = !refreshToken;
  element('replay').disabled = !lastCall;
  element('log-out').disabled = !key;
}

const cut = (text) => (text.length > 48 ? `${text.slice(0, 24)}… (${text.length} characters)` : text);

async function showExchange(url, { method, headers = {}, body }, response) {
  if (headers.authorization) lastCall = { method, headers, body };
  const parts = {
    Request: messageText(`${method} ${new URL(url).pathname}`, Object.entries(headers), body?.toString()),
  };
  const error = response && (await errorIn(response));
  parts.Response = 'None that this script can read.';
  if (response) {
    const text = await response.text();
    parts.Response = messageText(`${response.status} ${response.statusText}`, response.headers, text);
  }
  if (headers.dpop) {
    const jkt = await thumbprint(await load('key'));
    parts['The proof, decoded'] = `${decoded(headers.dpop)}\n\nthumbprint of the jwk:\n${jkt}`;
  }
  const [, token] = headers.authorization?.split(' ') ?? [];
  if (token) parts['The access token, decoded'] = decoded(token);
  await show(`${method} ${url}`, [response?.status ?? 'failed', error].filter(Boolean).join(' '), response?.ok, parts);
}

async function showNavigation(url, response) {
  const { origin, pathname, searchParams } = new URL(url);
  const list = (parameters) => [...parameters].map(([name, value]) => `${name}=${cut(value)}`).join('\n');
  const parts = { Request: list(searchParams), Response: list(response) };
  await show(`The user went to ${origin}${pathname}`, 'came back', !response.has('error'), parts);
}

function messageText(start, headers, body) {
  const fields = [...headers].map(([name, value]) => `${name}: ${value.split(' ').map(cut).join(' ')}`);
  const lines = [start, ...fields].join('\n');
  return body ? `${lines}\n\n${readable(body)}` : lines;
}

/** JSON or a form, with one member per line. */
function readable(body) {
  try {
    const shorten = (_, value) => (typeof value === 'string' ? cut(value) : value);
    return JSON.stringify(JSON.parse(body), shorten, 1);
  } catch {
    return [...new URLSearchParams(body)].map(([name, value]) => `${name}=${cut(value)}`).join('\n');
  }
}

/** The header and the claims of a JWT, whose signature is not verified here. */
function decoded(jwt) {
  const [header, claims] = jwt.split('.').map((part) => {
    const bytes = atob(part.replaceAll('-', '+').replaceAll('_', '/'));
    return new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
  });
  return [header, claims].map((json) => JSON.stringify(JSON.parse(json), undefined, 1)).join('\n');
}

/** Texts are added as text, never as markup: they come from servers. */
async function show(title, status, isGood, parts) {
  const exchanges = element('exchanges');
  for (const older of exchanges.children) older.open = false;
  const exchange = element('exchange').content.cloneNode(true).firstElementChild;
  exchange.open = true;
  exchange.querySelector('.number').textContent = `${exchanges.children.length + 1}`;
  exchange.querySelector('.title').textContent = title;
  exchange.querySelector('.status').textContent = status;
  exchange.querySelector('.status').classList.add(isGood ? 'good' : 'bad');
  const key = await load('key');
  const jkt = key && (await thumbprint(key));
  for (const [name, text] of Object.entries(parts)) {
    const part = element('part').content.cloneNode(true).firstElementChild;
    part.querySelector('h3').textContent = name;
    part.classList.toggle('decoded', name.endsWith('decoded'));
    const [first, ...rest] = jkt ? text.split(jkt) : [text];
    part.querySelector('pre').append(first, ...rest.flatMap((after) => [marked(jkt), after]));
    exchange.querySelector('.parts').append(part);
  }
  exchanges.prepend(exchange);
}

function marked(text) {
  const mark = document.createElement('mark');
  mark.textContent = text;
  return mark;
}

for (const id in actions) element(id)?.addEventListener('click', () => run(id));
await run('finish');

// The blocks of a test suite of the OpenID Foundation, FAPI2SPFinalDpopNegativeTests, and its neighbours about DPoP.
//
// The suite is a program in Java that drives a browser, so its blocks are written here again, each under the name of its
// class. The suite sends them to the resource; those that are about the proof alone go to the token endpoint, too. Proofs are
// put together here, with keys of jose, because no library signs all that the blocks send.

import { createHash } from 'node:crypto';
import { request } from 'node:http';

import { base64url, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from 'jose';
import { calculatePKCECodeChallenge, generateRandomCodeVerifier } from 'oauth4webapi';

import { REDIRECT_URI } from './libraries.mjs';
import { AUDIENCE, authorizationServer, resourceServer } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const SOFTWARE = ['jose', 'oauth4webapi'];
/** How clients reach the resource: with a host in letters and the default port, which two blocks are about. */
const PUBLIC_URL = 'https://api.example.com';
const BASIC = `Basic ${btoa('service:service-secret')}`;
/** What the suite expects: the statuses that it takes for a rejection and for success. */
const REJECTED = '400/401';
const ACCEPTED = '200/201';
/** Of other statuses than these two, the suite warns. Ours are these. */
const ACCEPTED_OR_WARNS = '200/201, else a warning';
const REJECTED_OR_WARNS = '400/401, else a warning';
/** With a nonce, the suite is content with 200 and warns. We reject with a nonce, too. */
const REJECTED_IF_NO_NONCE = '400/401, with a nonce 200 and a warning';

const RESOURCE = 'resource';
const TOKEN = 'token';

/** Number, class, what the suite expects, the one change to a good request, where (default: both), our error. */
const BLOCKS = [
  [1, 'AddDpopHeaderAllCapital', ACCEPTED_OR_WARNS, (draft) => { draft.field = 'DPOP'; }],
  [2, 'MultipleProofs', REJECTED, (draft) => { draft.count = 2; }],
  [3, 'NotWellformedDPoP', REJECTED, (draft) => { draft.edit = ([header, claims]) => [header, claims]; }],
  [4, 'RemoveTypFromDpopProof', REJECTED, ({ header }) => { delete header.typ; }],
  [5, 'SignDpopAndRemoveAlg', REJECTED, ({ header }) => { header.alg2 = header.alg; delete header.alg; }],
  [6, 'RemoveJwkFromDpopProof', REJECTED, ({ header }) => { delete header.jwk; }],
  [7, 'RemoveJtiFromDpopProof', REJECTED, ({ claims }) => { delete claims.jti; }],
  [8, 'RemoveHtmFromDpopProof', REJECTED, ({ claims }) => { delete claims.htm; }],
  [9, 'RemoveHtuFromDpopProof', REJECTED, ({ claims }) => { delete claims.htu; }],
  [10, 'RemoveIatFromDpopProof', REJECTED, ({ claims }) => { delete claims.iat; }],
  [11, 'without SetDpopAccessTokenHash', REJECTED, ({ claims }) => { delete claims.ath; }, RESOURCE],
  [12, 'SetDpopHeaderTypToInvalidValue', REJECTED, ({ header }) => { header.typ += '+other'; }],
  [14, 'SignDpopProofWithNone', REJECTED, (draft) => {
    draft.header.alg = 'none';
    draft.edit = ([header, claims]) => [header, claims, ''];
  }],
  [15, 'InvalidateDpopProofSignature', REJECTED, (draft) => { draft.edit = withOtherSignature; }],
  [16, 'SetDpopHeaderJwkToPrivateKey', REJECTED, ({ header, key }) => { header.jwk = key.privateJwk; }],
  [17, 'SetDpopHtmToPut', REJECTED, ({ claims }) => { claims.htm = 'PUT'; }],
  [18, 'AddQueryAndFragmentToDpopHtu', ACCEPTED, ({ claims }) => { claims.htu += '?some=query#and-fragment'; }],
  [19, 'RemoveQueryAndFragmentFromDpopHtu', ACCEPTED, (draft) => { draft.query = '?some=query'; }, RESOURCE],
  [20, 'SetDpopHtuToDifferentUrl', REJECTED, ({ claims }) => { claims.htu += 'elsewhere'; }],
  [21, 'SetDpopIatToOneHourInFuture', REJECTED_IF_NO_NONCE, ({ claims }) => { claims.iat += 3600; }],
  [22, 'SetDpopIatToOneHourInPast', REJECTED_IF_NO_NONCE, ({ claims }) => { claims.iat -= 3600; }],
  [25, 'SetDpopAccessTokenHashToIncorrectValue', REJECTED, ({ claims }) => { claims.ath = ath('another token'); },
    RESOURCE],
  [26, 'GenerateNewSignKey', REJECTED, async (draft) => { draft.key = await newKey(); }],
  [27, 'AddExtraClaimsToHeader', ACCEPTED, ({ header }) => { header.tx_id = 'one'; header.tx_id_key = 2; }],
  [27, 'AddExtraClaimsToClaims', ACCEPTED, ({ claims }) => { claims.tx_id = 'one'; claims.tx_id_key = 2; }],
  [28, 'DpopHtuUpperCase', ACCEPTED_OR_WARNS, ({ claims }) => {
    claims.htu = claims.htu.replace(/^[^/]*\/\/[^/]*/, (origin) => origin.toUpperCase());
  }],
  [29, 'DpopHtuWithPort', ACCEPTED_OR_WARNS, ({ claims }) => {
    claims.htu = claims.htu.replace(PUBLIC_URL, `${PUBLIC_URL}:443`);
  }, RESOURCE],
  [30, 'RemoveDpopFromResourceRequest', REJECTED, (draft) => { draft.count = 0; }],
  [31, 'CallProtectedResourceForceBearer', REJECTED, (draft) => { draft.count = 0; draft.scheme = 'Bearer'; },
    RESOURCE, 'invalid_token'],
];

export async function oidf() {
  for (const nonces of [false, true]) {
    const title = (what) => `OIDF ${what}, nonces ${nonces ? 'on' : 'off'}`;
    // Most of the 32 blocks have a row for each endpoint.
    await scenario(SOFTWARE, title('FAPI2SPFinalDpopNegativeTests'), (use, row) => negative(nonces, use, row), 58);
    await scenario(SOFTWARE, title('FAPI2SPFinal'), (use, row) => neighbours(nonces, use, row), 23);
  }
}

async function negative(nonces, use, row) {
  const { resource, token } = await servers(nonces, use);
  const key = await newKey();
  const accessToken = await newToken(token, key);
  const endpoints = [
    [RESOURCE, resource, (change) => resource.send({ key, accessToken, change })],
    [TOKEN, token, (change) => token.send({ key, ...SERVICE, change })],
  ];
  for (const [where, endpoint, send] of endpoints) {
    for (const [number, name, expected, change, only = where, error = 'invalid_dpop_proof'] of BLOCKS) {
      if (only !== where) continue;
      const named = number === 30 && nonces ? 'use_dpop_nonce' : error;
      const ours = expected.startsWith(ACCEPTED) ? '200' : `${endpoint.rejects} ${named}`;
      await row(`${number} ${name}, ${where} (${expected})`, ours, () => between(send, () => send(change)));
    }
    await row(`23, 24 FixedJtiClaim, ${where} (200, then ${REJECTED_OR_WARNS})`,
      `${endpoint.rejects} invalid_dpop_proof`, () => between(send, async () => {
        const change = ({ claims }) => { claims.jti = `fixed-${where}`; };
        holds('the first time', (await send(change)).status, 200);
        return send(change);
      }));
  }
  const rsa = await newKey('PS256');
  const rsaToken = await newToken(token, rsa);
  const changed = async (draft) => {
    draft.header.alg = 'RS256';
    draft.key = { ...rsa, privateKey: await importJWK(rsa.privateJwk, 'RS256') };
  };
  for (const [where, { rejects }, send] of [
    [RESOURCE, resource, (change) => resource.send({ key: rsa, accessToken: rsaToken, change })],
    [TOKEN, token, (change) => token.send({ key: rsa, ...SERVICE, change })],
  ]) {
    await row(`13 ChangeSignAlgorithm, ${where} (${REJECTED})`, `${rejects} invalid_dpop_proof`, () =>
      between(send, () => send(changed)));
  }
  await row('32 a good request again (200/201)', '200', () => resource.send({ key, accessToken }));
}

/** What other modules of the suite check about DPoP. */
async function neighbours(nonces, use, row) {
  const { as, par, resource, token } = await servers(nonces, use);
  const key = await newKey();
  const otherKey = await newKey();
  const accessToken = await newToken(token, key);

  const times = [
    ['check-dpop-proof-nbf-exp', ({ claims }) => { claims.nbf = claims.iat; claims.exp = claims.iat + 300; }],
    ['ensure-dpopproof-with-iat-10seconds-before-succeeds', ({ claims }) => { claims.iat -= 10; }],
    ['ensure-dpopproof-with-iat-10seconds-after-succeeds', ({ claims }) => { claims.iat += 8; }],
  ];
  for (const [name, change] of times) {
    await row(`${name}, PAR (201)`, '201', async () =>
      par.send({ key, body: (await authorization()).parameters, change }));
    await row(`${name}, token (200)`, '200', () => token.send({ key, ...SERVICE, change }));
    await row(`${name}, resource (200)`, '200', () => resource.send({ key, accessToken, change }));
  }

  const jkt = await calculateJwkThumbprint(key.jwk);
  const bound = { dpop_jkt: jkt };
  await row('ensure-dpop-auth-code-binding-success (200)', '200', async () =>
    token.send({ key, body: await code(as, par, { more: bound }) }));
  await row('ensure-dpopproof-at-par-endpoint-binding-success (200)', '200', async () =>
    token.send({ key, body: await code(as, par, { key }) }));
  await row('ensure-mismatched-dpop-jkt-fails (invalid_request or invalid_dpop_proof)', '400 invalid_request',
    async () => {
      const { parameters } = await authorization(bound);
      holds('with that key', (await par.send({ key, body: parameters })).status, 201);
      return par.send({ key: otherKey, body: parameters });
    });
  for (const [name, options] of [
    ['ensure-token-endpoint-fails-with-mismatched-dpop-jkt', { more: bound }],
    ['ensure-token-endpoint-fails-with-mismatched-dpop-proof-jkt', { key }],
  ]) {
    await row(`${name} (invalid_request, invalid_grant or invalid_dpop_proof)`, '400 invalid_grant', async () =>
      token.send({ key: otherKey, body: await code(as, par, options) }));
  }
  await row('ensure-holder-of-key-required (rejected)',
    nonces ? '400 use_dpop_nonce' : '400 invalid_dpop_proof',
    async () => token.send({ key, body: await code(as, par, {}), change: (draft) => { draft.count = 0; } }));

  const { refresh_token } = await (await token.send({ key, body: await code(as, par, {}) })).json();
  const refresh = (refresh_token) => ({ grant_type: 'refresh_token', client_id: 'app', refresh_token });
  await row('refresh-token (200)', '200', async () => {
    const response = await token.send({ key, body: refresh(refresh_token) });
    const refreshed = await response.clone().json();
    await row('refresh-token, the new access token (200)', '200', () =>
      resource.send({ key, accessToken: refreshed.access_token }));
    await row('refresh-token, another key (rejected)', '400 invalid_grant', () =>
      token.send({ key: otherKey, body: refresh(refreshed.refresh_token) }));
    return response;
  });

  const otherToken = await newToken(token, otherKey);
  await row('two clients: the second one\'s token with its own key (200)', '200', () =>
    resource.send({ key: otherKey, accessToken: otherToken }));
  await row('two clients: the second one\'s token with the first one\'s key (4xx)', '401 invalid_token', () =>
    resource.send({ key, accessToken: otherToken }));
  await row('DisallowAccessTokenInQuery (4xx)', '401', () =>
    resource.send({ key, accessToken, change: (draft) => {
      draft.scheme = undefined;
      draft.query = `?access_token=${accessToken}`;
    } }));
  await row('FAPI2CheckDpopSigningAlgValuesSupported', 'ES256', async () => {
    const metadata = await (await fetch(`${as.url}/.well-known/oauth-authorization-server`)).json();
    return metadata.dpop_signing_alg_values_supported.find((alg) =>
      ['PS256', 'ES256', 'EdDSA', 'Ed25519'].includes(alg));
  });
  await row('DPoP-Nonce in responses', nonces ? 'one each, well-formed' : 'none', () => {
    const fields = [par, resource, token].map(({ nonce }) => nonce);
    if (fields.every((nonce) => nonce === undefined)) return 'none';
    // RFC 6749, NQCHAR. Two fields would have been joined by a comma and a space.
    return fields.every((nonce) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(nonce)) ? 'one each, well-formed' : fields;
  });
}

/** Our two servers, and their endpoints. */
async function servers(nonces, use) {
  const as = await use(authorizationServer({ nonces }));
  const api = await use(resourceServer(as, { nonces, publicUrl: PUBLIC_URL }));
  const endpoint = (method, url, rejects, htu = url) => new Endpoint({ method, url, htu, rejects });
  return {
    as,
    par: endpoint('POST', `${as.url}/par`, 400),
    token: endpoint('POST', `${as.url}/token`, 400),
    resource: endpoint('GET', `${api.url}/protected`, 401, `${PUBLIC_URL}/protected`),
  };
}

/** A confidential client's request for a token. */
const SERVICE = { authorization: BASIC, body: { grant_type: 'client_credentials' } };

async function newToken(token, key) {
  return (await (await token.send({ key, ...SERVICE })).json()).access_token;
}

async function authorization(more = {}) {
  const verifier = generateRandomCodeVerifier();
  const code_challenge = await calculatePKCECodeChallenge(verifier);
  const parameters = {
    client_id: 'app', response_type: 'code', redirect_uri: REDIRECT_URI, code_challenge,
    code_challenge_method: 'S256', ...more,
  };
  return { parameters, verifier };
}

/** The token request for a new code, whose authorization request was pushed: with a proof if there is a key. */
async function code(as, par, { more, key }) {
  const { parameters, verifier: code_verifier } = await authorization(more);
  const pushed = await par.send({ key, body: parameters, change: (draft) => { draft.count = key ? 1 : 0; } });
  const { request_uri } = await pushed.json();
  const url = `${as.url}/authorize?${new URLSearchParams({ client_id: 'app', request_uri })}`;
  const { headers } = await fetch(url, { redirect: 'manual' });
  const code = new URL(headers.get('location')).searchParams.get('code');
  return { grant_type: 'authorization_code', client_id: 'app', redirect_uri: REDIRECT_URI, code, code_verifier };
}

/** An attempt between two good requests, so that what it came to is due to its one change. */
async function between(send, attempt) {
  holds('a good request before', (await send()).status, 200);
  const response = await attempt();
  const status = response.clone();
  holds('a good request after', (await send()).status, 200);
  return status;
}

class Endpoint {
  constructor(own) {
    Object.assign(this, own);
  }

  /**
   * Sends a good request, unless `change` alters its draft. If a nonce is demanded that could not be known, the request is
   * made once more.
   */
  async send(parts) {
    const knew = this.nonce !== undefined;
    const response = await this.#once(parts);
    const nonce = response.headers.get('dpop-nonce');
    this.nonce = nonce ?? this.nonce;
    return nonce && !knew ? this.#once(parts) : response;
  }

  async #once({ key, accessToken, authorization, body, change }) {
    const { htu, method, nonce, url } = this;
    const draft = {
      count: 1,
      field: 'DPoP',
      scheme: 'DPoP',
      query: '',
      edit: (segments) => segments,
      key,
      header: { typ: 'dpop+jwt', alg: key?.alg, jwk: key?.jwk },
      claims: {
        jti: crypto.randomUUID(), htm: method, htu, iat: Math.floor(Date.now() / 1000), nonce,
        ...(accessToken && { ath: ath(accessToken) }),
      },
    };
    await change?.(draft);
    const proofs = [];
    for (let i = 0; i < draft.count; i += 1) {
      proofs.push(await proof(draft));
      draft.claims = { ...draft.claims, jti: crypto.randomUUID() };
    }
    const fields = {
      ...(proofs.length > 0 && { [draft.field]: proofs }),
      ...(authorization && { Authorization: authorization }),
      ...(accessToken && draft.scheme && { Authorization: `${draft.scheme} ${accessToken}` }),
      ...(body && { 'Content-Type': 'application/x-www-form-urlencoded' }),
    };
    return exchange(method, url + draft.query, fields, body && `${new URLSearchParams(body)}`);
  }
}

async function newKey(alg = 'ES256') {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { alg, privateKey, jwk: await exportJWK(publicKey), privateJwk: await exportJWK(privateKey) };
}

async function proof({ header, claims, key: { privateKey }, edit }) {
  const input = [header, claims].map((part) => base64url.encode(JSON.stringify(part)));
  const parameters = { name: privateKey.algorithm.name, hash: 'SHA-256', saltLength: 32 };
  const signature = await crypto.subtle.sign(parameters, privateKey, new TextEncoder().encode(input.join('.')));
  return edit([...input, base64url.encode(new Uint8Array(signature))]).join('.');
}

function withOtherSignature([header, claims, signature]) {
  const bytes = base64url.decode(signature);
  return [header, claims, base64url.encode(bytes.map((byte) => byte ^ 0x5a))];
}

function ath(token) {
  return createHash('sha256').update(token).digest('base64url');
}

/** `fetch` would write names of fields in lower case, and several fields of one name as one. */
function exchange(method, url, headers, body) {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers }, async (received) => {
      const chunks = [];
      for await (const chunk of received) chunks.push(chunk);
      const fields = new Headers();
      for (let i = 0; i < received.rawHeaders.length; i += 2) {
        fields.append(received.rawHeaders[i], received.rawHeaders[i + 1]);
      }
      resolve(new Response(Buffer.concat(chunks), { status: received.statusCode, headers: fields }));
    });
    sent.on('error', reject).end(body);
  });
}

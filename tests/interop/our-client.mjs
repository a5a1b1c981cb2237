// Our client at foreign servers: oidc-provider as the authorization server, oauth4webapi as the
// resource server.

import { decodeJwt, decodeProtectedHeader, EmbeddedJWK, jwtVerify } from 'jose';
import * as oauth from 'oauth4webapi';

import { Oauth4webapi } from './libraries.mjs';
import { oidcProvider, PROOF_ALGS } from './provider.mjs';
import {
  AUDIENCE, authorizationServer, ourClient, resourceServer, serve, shortClient,
} from './servers.mjs';
import { holds, scenario } from './table.mjs';

const ALL = PROOF_ALGS.join(' ');
const INDICATOR = { indicator: AUDIENCE, scope: 'orders:read' };

export async function ours() {
  await scenario(['oidc-provider'], 'our client', choosing);
  await scenario(['oidc-provider'], 'our client', withoutDpop);
  for (const nonces of [false, true]) {
    const title = (what) => `${what}, nonces ${nonces ? 'on' : 'off'}`;
    await scenario(['oidc-provider'], title('our client and resource server'), (use, row) =>
      atOidcProvider(nonces, use, row));
    await scenario(['oauth4webapi', 'jose'], title('our client, server'), (use, row) =>
      atOauth4webapi(nonces, use, row));
    await scenario(['oidc-provider'], title('our client of fifteen lines'), (use, row) =>
      fifteenLines(nonces, use, row));
    await scenario(['oidc-provider', 'oauth4webapi', 'jose'], title('our client'), (use, row) =>
      amongStrangers(nonces, use, row));
  }
}

/** Foreign token endpoint, our resource server. */
async function atOidcProvider(nonces, use, row) {
  for (const tokenAlg of ['ES256', 'PS256']) {
    const foreign = await use(oidcProvider({ nonces, tokenAlg }));
    const resource = await use(resourceServer(foreign, { nonces, algs: ALL }));
    for (const alg of PROOF_ALGS) {
      await row(`${alg} proofs, ${tokenAlg} tokens`, '200 200 200', () => visit({
        ...INDICATOR, issuer: foreign.issuer, resource: `${resource.url}/protected`, alg, count: 3,
      }));
    }
  }
}

/** `examples/reqwest.rs` at a foreign token endpoint, and our resource server. */
async function fifteenLines(nonces, use, row) {
  const foreign = await use(oidcProvider({ nonces, resource: AUDIENCE }));
  const resource = await use(resourceServer(foreign, { nonces }));
  await row('DpopClient', '200 OK', async () => {
    const url = `${resource.url}/protected`;
    const [status = 'no response', body = '{}'] = await shortClient({ ...foreign, url });
    holds('subject', JSON.parse(body).sub, 'service');
    return status;
  });
}

/** Without `--alg`, the key is one whose algorithm the authorization server says it knows. */
async function choosing(use, row) {
  for (const chosen of ['ES256', 'PS256', 'Ed25519', 'EdDSA']) {
    const foreign = await use(oidcProvider({ proofAlgs: [chosen] }));
    const resource = await use(resourceServer(foreign));
    await row(`an authorization server that knows only ${chosen}`, '200', () => visit({
      ...INDICATOR, issuer: foreign.issuer, resource: `${resource.url}/protected`, chosen,
    }));
  }
}

/** A token that is not bound to the key is not what our client came for. */
async function withoutDpop(use, row) {
  const foreign = await use(oidcProvider({ dpop: false }));
  const resource = await use(resourceServer(foreign));
  await row('an authorization server that knows no DPoP', 'gave up', async () => {
    const { issuer } = foreign;
    const { code, calls } =
      await ourClient({ ...INDICATOR, issuer, resource: `${resource.url}/protected` });
    return code !== 0 && calls.length === 0 ? 'gave up' : `called ${calls.length} times`;
  });
}

/** Our token endpoint, foreign resource server. */
async function atOauth4webapi(nonces, use, row) {
  const { issuer } = await use(authorizationServer({ nonces, algs: ALL }));
  const foreign = await use(guarded(issuer, nonces));
  for (const alg of PROOF_ALGS) {
    await row(`${alg} proofs`, '200 200 200', async () => {
      foreign.forget();
      const resource = `${foreign.url}/orders?page=1`;
      const result = await visit({ issuer, resource, alg, count: 3 });
      await looksRight(foreign, { alg, nonces, count: 3 });
      return result;
    });
  }
  await row('tokens in the hands of oauth4webapi', '200', async () => {
    const client = await Oauth4webapi.connect(issuer, 'service', { secret: 'service-secret' });
    const key = await client.key();
    const { access_token } = await client.clientCredentials(key);
    return client.fetch(access_token, key, `${foreign.url}/orders`);
  });
  await row('a resource that rejects', '401', async () => {
    const elsewhere = await use(guarded('http://127.0.0.1:1', false));
    const { code, calls } = await ourClient({ issuer, resource: elsewhere.url });
    holds('it fails', code !== 0, true);
    return calls.map(({ status }) => status).join(' ');
  });
}

/** Foreign token endpoint, foreign resource server. */
async function amongStrangers(nonces, use, row) {
  const { issuer, jwks } = await use(oidcProvider({ nonces }));
  const foreign = await use(guarded(issuer, nonces));
  const resource = await use(resourceServer({ issuer, jwks }));
  const url = `${resource.url}/protected`;
  await row('foreign resource server', '200 200 200', async () => {
    const resource = `${foreign.url}/orders`;
    const result = await visit({ ...INDICATOR, issuer, resource, alg: 'ES256', count: 3 });
    await looksRight(foreign, { alg: 'ES256', nonces, count: 3 });
    return result;
  });
  const { authorization, dpop } = foreign.seen.at(-1);
  const token = authorization.split(' ')[1];
  await row('its token with another key, at our resource server', '401 invalid_token', async () => {
    const thief = await Oauth4webapi.connect(issuer, 'service', { secret: 'service-secret' });
    return thief.fetch(token, await thief.key(), url);
  });
  await row('its token and proof, at our resource server', '401 invalid_dpop_proof', () =>
    fetch(url, { headers: { authorization, dpop } }));
  await row('its token as Bearer, at our resource server', '401 invalid_token', () =>
    fetch(url, { headers: { authorization: `Bearer ${token}` } }));
}

/** The statuses of our client's calls, which it was content with. */
async function visit({ chosen, ...options }) {
  const { code, key, calls } = await ourClient(options);
  holds('exit code', code, 0);
  holds('alg', key.alg, chosen ?? options.alg);
  for (const { body } of calls) holds('jkt', body.jkt, key.jkt);
  return calls.map(({ status }) => status).join(' ');
}

/** What the resource server saw of our client. */
async function looksRight({ seen, demands }, { alg, nonces, count }) {
  holds('demands for a nonce', demands(), nonces ? 1 : 0);
  holds('requests', seen.length, nonces ? count + 1 : count);
  const proofs = seen.map(({ dpop }) => dpop);
  holds('distinct jti', new Set(proofs.map((proof) => decodeJwt(proof).jti)).size, proofs.length);
  for (const proof of proofs) {
    await jwtVerify(proof, EmbeddedJWK, { typ: 'dpop+jwt', algorithms: [alg] });
    const { jwk, ...header } = decodeProtectedHeader(proof);
    holds('header', header, { alg, typ: 'dpop+jwt' });
    const members = { EC: 'crv kty x y', OKP: 'crv kty x', RSA: 'e kty n' }[jwk.kty];
    holds('jwk', Object.keys(jwk).sort().join(' '), members);
    const { htu, iat } = decodeJwt(proof);
    holds('htu', [new URL(htu).search, new URL(htu).hash], ['', '']);
    holds('iat', Number.isInteger(iat), true);
  }
}

/**
 * A resource server that leaves the decision to oauth4webapi. With `nonces` it demands one in each
 * proof, and every response brings the next, which is then the only one it takes.
 */
async function guarded(issuer, nonces) {
  const as = await metadata(issuer);
  const seen = [];
  let demanded = 0;
  let nonce = crypto.randomUUID();
  const options = { requireDPoP: true, [oauth.allowInsecureRequests]: true };
  const server = await serve((url) => async (incoming, response) => {
    const { authorization = '', dpop = '' } = incoming.headers;
    seen.push({ authorization, dpop });
    const reject = (error) => {
      response.statusCode = 401;
      response.setHeader('www-authenticate', `DPoP realm="x", error="${error}", algs="${ALL}"`);
    };
    if (nonces && nonce !== decodeJwt(dpop).nonce) {
      demanded += 1;
      reject('use_dpop_nonce');
      response.setHeader('dpop-nonce', nonce);
      response.end();
      return;
    }
    try {
      const { method, url: path } = incoming;
      const request = new Request(new URL(path, url), { method, headers: { authorization, dpop } });
      const claims = await oauth.validateJwtAccessToken(as, request, AUDIENCE, options);
      if (nonces) {
        nonce = crypto.randomUUID();
        response.setHeader('dpop-nonce', nonce);
      }
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ sub: claims.sub, jkt: claims.cnf.jkt }));
    } catch (error) {
      console.error(`oauth4webapi rejects: ${error.message}`);
      reject('invalid_token');
      response.end();
    }
  });
  const forget = () => {
    seen.length = 0;
    demanded = 0;
  };
  return { ...server, seen, demands: () => demanded, forget };
}

async function metadata(issuer) {
  const response = await fetch(`${issuer}/.well-known/oauth-authorization-server`)
    .catch(() => undefined);
  return response ? response.json() : { issuer };
}

// Foreign clients at our two servers.

import { decodeProtectedHeader } from 'jose';
import { calculatePKCECodeChallenge, randomPKCECodeVerifier, randomState } from 'openid-client';

import { Oauth4webapi, OpenidClient, REDIRECT_URI } from './libraries.mjs';
import { authorizationServer, resourceServer } from './servers.mjs';
import { AT_RESOURCES, EVERYWHERE, WITH_NONCES } from './spoiled.mjs';
import { holds, scenario } from './table.mjs';

const SERVICE = { secret: 'service-secret' };

export async function clients() {
  for (const library of [Oauth4webapi, OpenidClient]) {
    for (const nonces of [false, true]) {
      const title = (what) => `${what}, nonces ${nonces ? 'on' : 'off'}`;
      const software = [library.software];
      const setting = { library, nonces };
      await scenario(software, title('confidential client'), (use, row) =>
        confidential(setting, use, row));
      await scenario(software, title('public client'), (use, row) =>
        publicClient(setting, use, row));
      await scenario(software, title('spoiled token requests'), (use, row) =>
        spoiledTokenRequests(setting, use, row));
      await scenario(software, title('spoiled resource requests'), (use, row) =>
        spoiledResourceRequests(setting, use, row));
    }
    await scenario([library.software], 'RS256', (use, row) => rs256(library, use, row));
  }
}

async function confidential({ library, nonces }, use, row) {
  const ours = await use(authorizationServer({ nonces }));
  const resource = await use(resourceServer(ours, { nonces }));
  await row('metadata (RFC 8414)', 'read', async () => {
    const { metadata } = await library.connect(ours.url, 'service', SERVICE);
    const algs = ['ES256', 'ES384', 'PS256', 'Ed25519', 'EdDSA'];
    holds('proof algorithms', metadata.dpop_signing_alg_values_supported, algs);
    holds('PKCE', metadata.code_challenge_methods_supported, ['S256']);
    holds('issuer', metadata.issuer, ours.url);
    return 'read';
  });

  for (const alg of ['ES256', 'ES384', 'PS256', 'Ed25519', 'EdDSA']) {
    let token;
    const client = await library.connect(ours.url, 'service', SERVICE);
    const key = await client.key(alg);
    await row(`${alg}: client_credentials`, '200 dpop', async () => {
      token = await client.clientCredentials(key);
      holds('alg', decodeProtectedHeader(client.sent.last().headers.dpop).alg, alg);
      demanded(client, nonces ? [400] : []);
      const { headers } = client.sent.last().response;
      holds('Cache-Control', headers.get('cache-control'), 'no-store');
      return token;
    });
    await row(`${alg}: GET`, '200', async () => {
      const response = await client.fetch(token.access_token, key, `${resource.url}/protected`);
      demanded(client, nonces ? [400, 401] : []);
      const { jkt } = await response.clone().json();
      holds('jkt', jkt, await key.calculateThumbprint());
      return response;
    });
  }

  const client = await library.connect(ours.url, 'service', { ...SERVICE, post: true });
  const key = await client.key();
  await row('client_secret_post', '200 dpop', () => client.clientCredentials(key));
  await row('wrong secret', '401 invalid_client', async () => {
    const impostor = await library.connect(ours.url, 'service', { secret: 'guessed' });
    return impostor.clientCredentials(key);
  });
  await row('unknown client', '401 invalid_client', async () => {
    const stranger = await library.connect(ours.url, 'stranger', SERVICE);
    return stranger.clientCredentials(key);
  });

  const { access_token: token } = await client.clientCredentials(key);
  for (const [method, path, body] of [
    ['GET', '/protected/orders?of=me&page=2#top'],
    ['POST', '/protected/orders?of=me', 'one'],
    ['DELETE', '/protected/orders/caf%C3%A9'],
    ['PUT', '/protected/a%2Fb/~c', 'two'],
  ]) {
    await row(`${method} ${path}`, '200', async () => {
      const url = new URL(path, resource.url);
      const response = await client.fetch(token, key, url, { method, body });
      const seen = await response.clone().json();
      holds('seen by the application', [seen.method, seen.path], [method, url.pathname]);
      return response;
    });
  }

  await row('introspection (RFC 7662)', 'active', async () => {
    const { active, token_type, cnf } = await client.introspect(token);
    holds('bound to', [token_type, cnf], ['DPoP', { jkt: await key.calculateThumbprint() }]);
    return active ? 'active' : 'inactive';
  });
  await row('introspection of a spoiled token', 'inactive', async () => {
    const body = await client.introspect(otherSignature(token));
    holds('nothing else', body, { active: false });
    return 'inactive';
  });
  await row('many requests with one nonce', '200', async () => {
    const before = client.sent.rejections().length;
    const url = `${resource.url}/protected`;
    const responses = await Promise.all(
      Array.from({ length: 20 }, () => client.fetch(token, key, url)),
    );
    holds('demands for a nonce', client.sent.rejections().length, before);
    return responses.find(({ status }) => status !== 200) ?? responses[0];
  });
}

async function publicClient({ library, nonces }, use, row) {
  const ours = await use(authorizationServer({ nonces }));
  const resource = await use(resourceServer(ours, { nonces }));
  const client = await library.connect(ours.url, 'app');
  const key = await client.key();
  const otherKey = await client.key();
  const dpop_jkt = await key.calculateThumbprint();

  let tokens;
  await row('authorization code, PKCE', '200 dpop', async () => {
    const code = await authorize(client);
    tokens = await client.redeem(...code, key);
    return tokens;
  });
  await row('resource request with it', '200', () =>
    client.fetch(tokens.access_token, key, `${resource.url}/protected`));

  await row('refresh with the same key', '200 dpop', async () => {
    const refreshed = await client.refresh(tokens.refresh_token, key);
    holds('rotated', refreshed.refresh_token !== tokens.refresh_token, true);
    return refreshed;
  });
  await row('refresh with a used token', '400 invalid_grant', () =>
    client.refresh(tokens.refresh_token, key));
  await row('refresh with another key', '400 invalid_grant', async () => {
    const { refresh_token } = await client.redeem(...(await authorize(client)), key);
    return client.refresh(refresh_token, otherKey);
  });
  await row('refreshed access token at the resource', '200', async () => {
    const { refresh_token } = await client.redeem(...(await authorize(client)), key);
    const { access_token } = await client.refresh(refresh_token, key);
    return client.fetch(access_token, key, `${resource.url}/protected`);
  });

  await row('a code used twice', '400 invalid_grant', async () => {
    const code = await authorize(client);
    await client.redeem(...code, key);
    return client.redeem(...code, key);
  });
  await row('another code_verifier', '400 invalid_grant', async () => {
    const [callback, { state }] = await authorize(client);
    return client.redeem(callback, { state, verifier: randomPKCECodeVerifier() }, key);
  });

  await row('dpop_jkt, code redeemed with that key', '200 dpop', async () =>
    client.redeem(...(await authorize(client, { dpop_jkt })), key));
  await row('dpop_jkt, code redeemed with another key', '400 invalid_grant', async () =>
    client.redeem(...(await authorize(client, { dpop_jkt })), otherKey));

  await row('PAR with dpop_jkt', '200 dpop', async () =>
    client.redeem(...(await push(client, { dpop_jkt })), key));
  await row('PAR with dpop_jkt, another key', '400 invalid_grant', async () =>
    client.redeem(...(await push(client, { dpop_jkt })), otherKey));
  await row('PAR with a proof', '200 dpop', async () =>
    client.redeem(...(await push(client, {}, key)), key));
  await row('PAR with a proof, another key', '400 invalid_grant', async () =>
    client.redeem(...(await push(client, {}, key)), otherKey));
  await row('PAR with dpop_jkt and a proof', '200 dpop', async () =>
    client.redeem(...(await push(client, { dpop_jkt }, key)), key));
  await row('PAR with dpop_jkt and a proof by another key', '400 invalid_request', () =>
    push(client, { dpop_jkt }, otherKey));
  await row('PAR with a proof for the token endpoint', '400 invalid_dpop_proof', async () => {
    const { token_endpoint } = client.metadata;
    const spoiled = await client.key('ES256', (_, claims) => { claims.htu = token_endpoint; });
    return push(client, {}, spoiled);
  });
}

async function spoiledTokenRequests({ library, nonces }, use, row) {
  const ours = await use(authorizationServer({ nonces }));
  const client = await library.connect(ours.url, 'service', SERVICE);
  const noProof = nonces ? '400 use_dpop_nonce' : '400 invalid_dpop_proof';

  await row('no proof', noProof, () => client.clientCredentials(undefined));
  await row('sent again as it was', '400 invalid_dpop_proof', async () => {
    await client.clientCredentials(await client.key());
    return client.sent.again();
  });
  await row('RS256, which is not among the algorithms', '400 invalid_dpop_proof', async () =>
    client.clientCredentials(await client.key('RS256')));
  const defects = spoiling(library, [...EVERYWHERE, ...(nonces ? WITH_NONCES : [])]);
  for (const [name, spoil, error] of defects) {
    await row(name, `400 ${error}`, async () =>
      client.clientCredentials(await client.key('ES256', spoil)));
  }
}

async function spoiledResourceRequests({ library, nonces }, use, row) {
  const ours = await use(authorizationServer());
  const resource = await use(resourceServer(ours, { nonces }));
  const client = await library.connect(ours.url, 'service', SERVICE);
  const key = await client.key();
  const { access_token: token } = await client.clientCredentials(key);
  const url = `${resource.url}/protected`;
  const noProof = nonces ? '401 use_dpop_nonce' : '401 invalid_dpop_proof';

  await row('sent again as it was', '401 invalid_dpop_proof', async () => {
    holds('the first time', (await client.fetch(token, key, url)).status, 200);
    return client.sent.again();
  });
  await row('the same proof for another query', '401 invalid_dpop_proof', async () => {
    holds('the first time', (await client.fetch(token, key, `${url}?page=1`)).status, 200);
    return client.sent.again(`${url}?page=2`);
  });
  await row('a proof by another key', '401 invalid_token', async () =>
    client.fetch(token, await client.key(), url));
  await row('the token as Bearer', '401 invalid_token', () => client.fetch(token, undefined, url));
  await row('the token as Bearer, with a good proof', '401 invalid_token', async () => {
    await client.fetch(token, key, url);
    const authorization = `Bearer ${token}`;
    const { dpop } = client.sent.last().headers;
    return fetch(url, { headers: { authorization, dpop } });
  });
  await row('no proof', noProof, () =>
    fetch(url, { headers: { authorization: `DPoP ${token}` } }));
  await row('two proofs in one field', '401 invalid_dpop_proof', async () => {
    await client.fetch(token, key, url);
    const { authorization, dpop } = client.sent.last().headers;
    return fetch(url, { headers: { authorization, dpop: `${dpop}, ${dpop}` } });
  });
  await row('no token', '401', () => fetch(url));
  await row('no token where none is needed', '200', () => fetch(`${resource.url}/health`));
  await row('a spoiled token', '401 invalid_token', () =>
    client.fetch(otherSignature(token), key, url));
  await row('RS256, which is not among the algorithms', '401 invalid_dpop_proof', async () =>
    client.fetch(token, await client.key('RS256'), url));

  const everywhere = [...EVERYWHERE, ...(nonces ? WITH_NONCES : [])];
  const defects = spoiling(library, [...everywhere, ...AT_RESOURCES]);
  for (const [name, spoil, error] of defects) {
    await row(name, `401 ${error}`, async () => {
      // Its own token, so that nothing but the defect is wrong.
      const defect = { spoil: () => {} };
      const own = await client.key('ES256', (header, claims) => defect.spoil(header, claims));
      const { access_token } = await client.clientCredentials(own);
      defect.spoil = spoil;
      return client.fetch(access_token, own, url);
    });
  }
}

/** Rejected unless asked for; both servers have to be. */
async function rs256(library, use, row) {
  const algs = 'ES256 RS256';
  const ours = await use(authorizationServer({ algs }));
  const strict = await use(resourceServer(ours));
  const lax = await use(resourceServer(ours, { algs }));
  const client = await library.connect(ours.url, 'service', SERVICE);
  const key = await client.key('RS256');
  let token;
  await row('client_credentials where it is among the algorithms', '200 dpop', async () => {
    holds('metadata', client.metadata.dpop_signing_alg_values_supported, algs.split(' '));
    token = await client.clientCredentials(key);
    return token;
  });
  await row('GET where it is', '200', () =>
    client.fetch(token.access_token, key, `${lax.url}/protected`));
  await row('GET where it is not', '401 invalid_dpop_proof', () =>
    client.fetch(token.access_token, key, `${strict.url}/protected`));
}

/** The proofs of openid-client are those of oauth4webapi, so that one of them suffices. */
function spoiling(library, defects) {
  return library === Oauth4webapi ? defects : [];
}

/** The statuses of all rejections so far, which were demands for a nonce and nothing else. */
function demanded(client, statuses) {
  const rejections = client.sent.rejections();
  holds('demands for a nonce', rejections.map(({ status }) => status), statuses);
  for (const { headers } of rejections) {
    holds('DPoP-Nonce', headers.has('dpop-nonce'), true);
    holds('Cache-Control', headers.get('cache-control'), 'no-store');
  }
}

/** What the browser does: follows the authorization URL to the server, and comes back. */
async function comeBack(url, { state, verifier }) {
  const response = await fetch(url, { redirect: 'manual' });
  holds('a redirection', [302, 303].includes(response.status), true);
  const callback = new URL(response.headers.get('location'));
  holds('where to', callback.href.startsWith(`${REDIRECT_URI}?`), true);
  return [callback, { state, verifier }];
}

async function authorize(client, more = {}) {
  const { secrets, parameters } = await request();
  return comeBack(client.authorizationUrl({ ...parameters, ...more }), secrets);
}

async function push(client, more, key) {
  const { secrets, parameters } = await request();
  return comeBack(await client.pushedAuthorizationUrl({ ...parameters, ...more }, key), secrets);
}

async function request() {
  const secrets = { state: randomState(), verifier: randomPKCECodeVerifier() };
  const parameters = {
    response_type: 'code',
    redirect_uri: REDIRECT_URI,
    state: secrets.state,
    code_challenge: await calculatePKCECodeChallenge(secrets.verifier),
    code_challenge_method: 'S256',
  };
  return { secrets, parameters };
}

/** The same token with the signature's first character exchanged. */
function otherSignature(token) {
  const [header, claims, signature] = token.split('.');
  const first = signature.startsWith('A') ? 'B' : 'A';
  return [header, claims, first + signature.slice(1)].join('.');
}

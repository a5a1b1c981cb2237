// jose as the issuer, whose access tokens have one defect each, and as the reader of ours.

import {
  createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify, SignJWT, UnsecuredJWT,
} from 'jose';
import * as oauth from 'oauth4webapi';

import { Oauth4webapi } from './libraries.mjs';
import { AUDIENCE, authorizationServer, resourceServer, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const ISSUER = 'https://as.example.com';
const SOFTWARE = ['jose', 'oauth4webapi'];
const ALGORITHMS = ['ES256', 'ES384', 'PS256', 'RS256', 'Ed25519', 'EdDSA'];

export async function tokens() {
  for (const alg of ALGORITHMS) {
    await scenario(SOFTWARE, `token by ${alg}`, async (use, row) => {
      const { visit } = await setting(use, alg);
      await row('GET', '200', () => visit());
    });
  }
  await scenario(SOFTWARE, 'our access tokens', ourTokens);
  await scenario(SOFTWARE, 'token', defects);
  await scenario(SOFTWARE, 'token, --lenient-typ', async (use, row) => {
    const { visit } = await setting(use, 'ES256', { lenientTyp: true });
    await row('typ at+jwt', '200', () => visit());
    await row('typ JWT', '200', () => visit({ header: { typ: 'JWT' } }));
    await row('no typ', '200', () => visit({ header: { typ: undefined } }));
    await row('typ dpop+jwt', '401 invalid_token', () => visit({ header: { typ: 'dpop+jwt' } }));
  });
}

/** Our access tokens by RFC 9068, and the keys they are verified with. */
async function ourTokens(use, row) {
  const tokenLife = 120;
  const { issuer, jwks } = await use(authorizationServer({ tokenLife }));
  const client = await Oauth4webapi.connect(issuer, 'service', { secret: 'service-secret' });
  const key = await client.key();
  const { access_token: token, expires_in } = await client.clientCredentials(key);
  await row('verified', 'ES256 at+jwt', async () => {
    const { payload, protectedHeader: { alg, typ } } = await jwtVerify(
      token, createRemoteJWKSet(new URL(client.metadata.jwks_uri)),
      {
        algorithms: ['ES256'],
        audience: AUDIENCE,
        issuer,
        requiredClaims: ['client_id', 'cnf', 'exp', 'iat', 'jti', 'sub'],
        typ: 'at+jwt',
      },
    );
    holds('cnf', payload.cnf, { jkt: await key.calculateThumbprint() });
    holds('client_id', payload.client_id, 'service');
    holds('lifetime', [expires_in, payload.exp - payload.iat], [tokenLife, tokenLife]);
    return `${alg} ${typ}`;
  });
  await row('key set', 'public', async () => {
    const { keys } = await (await fetch(jwks)).json();
    return keys.some((jwk) => 'd' in jwk) ? 'private' : 'public';
  });
}

async function defects(use, row) {
  const { visit, now, otherKey, publicBytes } = await setting(use, 'ES256');
  const good = [
    ['no defect', {}],
    ['typ application/at+jwt', { header: { typ: 'application/at+jwt' } }],
    ['aud with several members', { claims: { aud: ['https://other.example.com', AUDIENCE] } }],
    ['exp with a fraction', { claims: { exp: now + 60.5 } }],
    ['exp seconds ago, within the leeway', { claims: { exp: now - 5 } }],
    ['unknown claims', { claims: { tenant: { id: 7, tags: ['a'] } } }],
    ['no kid', { header: { kid: undefined } }],
  ];
  for (const [name, change] of good) await row(name, '200', () => visit(change));

  const bad = [
    ['exp an hour ago', { claims: { exp: now - 3600 } }],
    ['no exp', { claims: { exp: undefined } }],
    ['nbf in an hour', { claims: { nbf: now + 3600 } }],
    ['aud of another API', { claims: { aud: 'https://other.example.com' } }],
    ['no aud', { claims: { aud: undefined } }],
    ['iss of another issuer', { claims: { iss: 'https://other.example.com' } }],
    ['iss with a slash more', { claims: { iss: `${ISSUER}/` } }],
    ['no cnf', { claims: { cnf: undefined } }],
    ['cnf of a certificate', { claims: { cnf: { 'x5t#S256': 'A'.repeat(43) } } }],
    ['cnf of another key', { claims: { cnf: { jkt: 'A'.repeat(43) } } }],
    ['typ JWT', { header: { typ: 'JWT' } }],
    ['no typ', { header: { typ: undefined } }],
    ['unknown kid', { header: { kid: 'unknown' } }],
    ['signed by another key', { key: otherKey }],
    ['HS256 with the public key as the secret', { key: publicBytes, header: { alg: 'HS256' } }],
    ['unsecured', { unsecured: true }],
  ];
  for (const [name, change] of bad) {
    await row(name, '401 invalid_token', () => visit(change));
  }
}

/** Our resource server for an issuer that is nothing but keys, and a way to visit it. */
async function setting(use, alg, options) {
  const { privateKey, publicKey } = await generateKeyPair(alg);
  const { privateKey: otherKey } = await generateKeyPair(alg);
  const jwk = { ...(await exportJWK(publicKey)), kid: '1' };
  const issuer = await use(serve(() => (_, response) => {
    response.setHeader('content-type', 'application/jwk-set+json');
    response.end(JSON.stringify({ keys: [jwk] }));
  }));
  const resource = await use(resourceServer({ issuer: ISSUER, jwks: issuer.url }, options));
  const now = Math.floor(Date.now() / 1000);

  const DPoP = oauth.DPoP({ client_id: 'any' }, await oauth.generateKeyPair('ES256'));
  const jkt = await DPoP.calculateThumbprint();
  const visit = async ({ header, claims, key = privateKey, unsecured = false } = {}) => {
    const contents = {
      iss: ISSUER, aud: AUDIENCE, sub: 'somebody', client_id: 'any', jti: crypto.randomUUID(),
      iat: now, exp: now + 60, cnf: { jkt }, ...claims,
    };
    const token = unsecured
      ? new UnsecuredJWT(contents).encode()
      : await new SignJWT(contents)
        .setProtectedHeader({ alg, typ: 'at+jwt', kid: '1', ...header })
        .sign(key);
    return oauth.protectedResourceRequest(
      token, 'GET', new URL('/protected', resource.url), undefined, undefined,
      { DPoP, [oauth.allowInsecureRequests]: true },
    );
  };
  const publicBytes = new TextEncoder().encode(JSON.stringify(jwk));
  return { visit, now, otherKey, publicBytes };
}

// Proofs with one defect each, made by the library under test.

const REJECTED = 'invalid_dpop_proof';

/** What is wrong, what makes it so, and the error of the response. */
export const EVERYWHERE = [
  ['htm of another method', (header, claims) => { claims.htm = 'PUT'; }, REJECTED],
  ['htm in lower case', (header, claims) => { claims.htm = claims.htm.toLowerCase(); }, REJECTED],
  ['htu of another path', (header, claims) => { claims.htu += '/elsewhere'; }, REJECTED],
  ['htu of another origin', (header, claims) => { claims.htu = 'http://127.0.0.1:1/'; }, REJECTED],
  ['iat an hour ago', (header, claims) => { claims.iat -= 3600; }, REJECTED],
  ['iat in an hour', (header, claims) => { claims.iat += 3600; }, REJECTED],
  ['no jti', (header, claims) => { delete claims.jti; }, REJECTED],
  ['typ JWT', (header) => { header.typ = 'JWT'; }, REJECTED],
  ['alg none', (header) => { header.alg = 'none'; }, REJECTED],
  ['a private member in jwk', (header) => { header.jwk = { ...header.jwk, d: 'AA' }; }, REJECTED],
];

export const AT_RESOURCES = [
  ['ath of another token', (header, claims) => { claims.ath = 'A'.repeat(43); }, REJECTED],
  ['no ath', (header, claims) => { delete claims.ath; }, REJECTED],
];

export const WITH_NONCES = [
  ['a foreign nonce', (header, claims) => { claims.nonce = 'foreign'; }, 'use_dpop_nonce'],
];

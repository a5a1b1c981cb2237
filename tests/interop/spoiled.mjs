// Proofs with one defect each, made by the library under test.

const REFUSED = 'invalid_dpop_proof';

/** What is wrong, what makes it so, and the error of the response. */
export const EVERYWHERE = [
  ['htm of another method', (header, claims) => { claims.htm = 'PUT'; }, REFUSED],
  ['htm in lower case', (header, claims) => { claims.htm = claims.htm.toLowerCase(); }, REFUSED],
  ['htu of another path', (header, claims) => { claims.htu += '/elsewhere'; }, REFUSED],
  ['htu of another origin', (header, claims) => { claims.htu = 'http://127.0.0.1:1/'; }, REFUSED],
  ['iat an hour ago', (header, claims) => { claims.iat -= 3600; }, REFUSED],
  ['iat in an hour', (header, claims) => { claims.iat += 3600; }, REFUSED],
  ['no jti', (header, claims) => { delete claims.jti; }, REFUSED],
  ['typ JWT', (header) => { header.typ = 'JWT'; }, REFUSED],
  ['alg none', (header) => { header.alg = 'none'; }, REFUSED],
  ['a private member in jwk', (header) => { header.jwk = { ...header.jwk, d: 'AA' }; }, REFUSED],
];

export const AT_RESOURCES = [
  ['ath of another token', (header, claims) => { claims.ath = 'A'.repeat(43); }, REFUSED],
  ['no ath', (header, claims) => { delete claims.ath; }, REFUSED],
];

export const WITH_NONCES = [
  ['a foreign nonce', (header, claims) => { claims.nonce = 'foreign'; }, 'use_dpop_nonce'],
];

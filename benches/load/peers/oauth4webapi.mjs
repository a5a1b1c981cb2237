// A resource server on oauth4webapi and Node's http, for comparison. It has no replay store, as the library has none.
//
//   node oauth4webapi.mjs PUBLIC-URL ISSUER JWKS-FILE

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import * as oauth from 'oauth4webapi';

const [publicUrl, issuer, file] = process.argv.slice(2);
const keys = readFileSync(file, 'utf8');
const server = { issuer, jwks_uri: `${issuer}/jwks` };
const options = {
  requireDPoP: true,
  // Called once: the keys are cached by `server`.
  [oauth.customFetch]: async () => new Response(keys, { headers: { 'content-type': 'application/json' } }),
};

createServer(async ({ method, url, headers }, response) => {
  if (url === '/health') return response.end();
  try {
    const request = new Request(publicUrl + url, { method, headers });
    const { sub, cnf } = await oauth.validateJwtAccessToken(server, request, publicUrl, options);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ jkt: cnf.jkt, method, path: url, sub }));
  } catch {
    response.writeHead(401).end();
  }
}).listen(0, '127.0.0.1', function () {
  console.log(`listening on http://127.0.0.1:${this.address().port}`);
});

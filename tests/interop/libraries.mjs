// oauth4webapi and openid-client behind one interface, so that both are asked the same things.
//
// A key is made with `key(alg, modify)`, where `modify` may spoil the header and the claims of its
// proofs. Demands for a nonce are met as each library documents: by openid-client itself, and with
// oauth4webapi by trying once more.

import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

/** Never fetched: who is redirected to it reads the URL. */
export const REDIRECT_URI = 'http://127.0.0.1/callback';

/** A `fetch` that remembers, to count rejections and to send a request again as it was. */
function recorder() {
  const exchanges = [];
  return {
    async fetch(url, init) {
      const response = await fetch(url, init);
      exchanges.push({ url, init, response });
      return response;
    },
    /** The responses that were rejections, whatever for. */
    rejections: () => exchanges.map(({ response }) => response).filter(({ status }) => status >= 400),
    /** The URL of the last request, its header fields, and the response. */
    last: () => ({ ...exchanges.at(-1), headers: exchanges.at(-1).init.headers }),
    /** The last request, byte for byte, to the same URL or another. */
    again: (url = exchanges.at(-1).url) => fetch(url, exchanges.at(-1).init),
  };
}

/** WebCrypto knows Ed25519 by one name; the older one of JOSE is written over it. */
function modifying(alg, modify) {
  return {
    [oauth.modifyAssertion](header, claims) {
      if (alg === 'EdDSA') header.alg = alg;
      modify?.(header, claims);
    },
  };
}

export class Oauth4webapi {
  static software = 'oauth4webapi';

  static async connect(issuer, clientId, { secret, post = false } = {}) {
    const self = new this();
    self.sent = recorder();
    self.options = { [oauth.allowInsecureRequests]: true, [oauth.customFetch]: self.sent.fetch };
    const url = new URL(issuer);
    const discovery = await oauth.discoveryRequest(url, { ...self.options, algorithm: 'oauth2' });
    self.metadata = await oauth.processDiscoveryResponse(url, discovery);
    self.client = { client_id: clientId };
    const withSecret = post ? oauth.ClientSecretPost : oauth.ClientSecretBasic;
    self.authentication = secret ? withSecret(secret) : oauth.None();
    return self;
  }

  async key(alg = 'ES256', modify = undefined) {
    const pair = await oauth.generateKeyPair(alg);
    return oauth.DPoP(this.client, pair, modifying(alg, modify));
  }

  clientCredentials(DPoP, parameters = {}) {
    return this.#grant(
      oauth.clientCredentialsGrantRequest,
      oauth.processClientCredentialsResponse,
      [parameters],
      DPoP,
    );
  }

  authorizationUrl(parameters) {
    const url = new URL(this.metadata.authorization_endpoint);
    url.search = new URLSearchParams({ ...parameters, client_id: this.client.client_id });
    return url;
  }

  async pushedAuthorizationUrl(parameters, DPoP) {
    const { request_uri } = await this.#grant(
      oauth.pushedAuthorizationRequest,
      oauth.processPushedAuthorizationResponse,
      [parameters],
      DPoP,
    );
    return this.authorizationUrl({ request_uri });
  }

  async redeem(callback, { verifier, state }, DPoP) {
    const parameters = oauth.validateAuthResponse(this.metadata, this.client, callback, state);
    return this.#grant(
      oauth.authorizationCodeGrantRequest,
      oauth.processAuthorizationCodeResponse,
      [parameters, REDIRECT_URI, verifier],
      DPoP,
    );
  }

  refresh(refreshToken, DPoP) {
    return this.#grant(
      oauth.refreshTokenGrantRequest,
      oauth.processRefreshTokenResponse,
      [refreshToken],
      DPoP,
    );
  }

  async introspect(token) {
    const { metadata, client, authentication, options } = this;
    const response =
      await oauth.introspectionRequest(metadata, client, authentication, token, options);
    return oauth.processIntrospectionResponse(metadata, client, response);
  }

  async revoke(token) {
    const { metadata, client, authentication, options } = this;
    const response =
      await oauth.revocationRequest(metadata, client, authentication, token, options);
    return oauth.processRevocationResponse(response);
  }

  fetch(token, DPoP, url, { method = 'GET', body } = {}) {
    return twice(() => oauth.protectedResourceRequest(
      token, method, new URL(url), undefined, body, { ...this.options, DPoP },
    ));
  }

  #grant(request, process, parameters, DPoP) {
    const { metadata, client, authentication, options } = this;
    return twice(async () => {
      const arguments_ = [metadata, client, authentication, ...parameters, { ...options, DPoP }];
      return process(metadata, client, await request(...arguments_));
    });
  }
}

export class OpenidClient {
  static software = 'openid-client';

  static async connect(issuer, clientId, { secret, post = false } = {}) {
    const self = new this();
    self.sent = recorder();
    const withSecret = post ? openid.ClientSecretPost : openid.ClientSecretBasic;
    const authentication = secret ? withSecret(secret) : openid.None();
    self.config = await openid.discovery(new URL(issuer), clientId, undefined, authentication, {
      algorithm: 'oauth2',
      execute: [openid.allowInsecureRequests],
      [openid.customFetch]: self.sent.fetch,
    });
    self.metadata = self.config.serverMetadata();
    return self;
  }

  async key(alg = 'ES256', modify = undefined) {
    const pair = await openid.randomDPoPKeyPair(alg);
    return openid.getDPoPHandle(this.config, pair, modifying(alg, modify));
  }

  clientCredentials(DPoP, parameters = {}) {
    return openid.clientCredentialsGrant(this.config, parameters, { DPoP });
  }

  authorizationUrl(parameters) {
    return openid.buildAuthorizationUrl(this.config, parameters);
  }

  pushedAuthorizationUrl(parameters, DPoP) {
    return openid.buildAuthorizationUrlWithPAR(this.config, parameters, { DPoP });
  }

  redeem(callback, { verifier, state }, DPoP) {
    const checks = { pkceCodeVerifier: verifier, expectedState: state };
    return openid.authorizationCodeGrant(this.config, callback, checks, undefined, { DPoP });
  }

  refresh(refreshToken, DPoP) {
    return openid.refreshTokenGrant(this.config, refreshToken, undefined, { DPoP });
  }

  introspect(token) {
    return openid.tokenIntrospection(this.config, token);
  }

  fetch(token, DPoP, url, { method = 'GET', body } = {}) {
    const options = { DPoP };
    return openid.fetchProtectedResource(
      this.config, token, new URL(url), method, body, undefined, options,
    );
  }
}

async function twice(attempt) {
  try {
    return await attempt();
  } catch (error) {
    if (oauth.isDPoPNonceError(error)) return attempt();
    throw error;
  }
}

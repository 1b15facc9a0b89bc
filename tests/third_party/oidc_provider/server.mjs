// node-oidc-provider on loopback, and a protected resource beside it that asks it about every token.
//
// Writes one line of JSON at a time. The first line contains the URLs and a refresh token. Each line on standard input is answered
// with a new refresh token (of a session of its own), the counters, and the access tokens issued so far. The line `revoke` revokes
// these. The program ends with its standard input, so that a test that dies leaves no process behind.
//
// `ACCESS_TOKEN_SECONDS` is the lifetime of access tokens in whole seconds, of which the first has already begun.

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import Provider from 'oidc-provider';

// Contains all characters that a client must encode (RFC 6749 §2.3.1).
const CLIENT = { client_id: 'compass', client_secret: 's3cr3t:with/odd%chars+&=' };
const RESOURCE_SERVER = { client_id: 'api', client_secret: 'the resource server\'s own' };
const SCOPE = 'openid offline_access';

// ===== the authorization server =====

const authorizationServer = await listen();
const issuer = urlOf(authorizationServer);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const provider = new Provider(issuer, {
  clients: [
    {
      ...CLIENT,
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['https://compass.example.com/callback'],
    },
    { ...RESOURCE_SERVER, grant_types: [], redirect_uris: [], response_types: [] },
  ],
  // The key below is an elliptic one, and the default is RS256.
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256' }] },
  cookies: { keys: ['nobody logs in here'] },
  features: { devInteractions: { enabled: false }, introspection: { enabled: true, allowedPolicy: mayIntrospect } },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  ttl: { AccessToken: Number(process.env.ACCESS_TOKEN_SECONDS ?? 60), Grant: 3600, IdToken: 60, RefreshToken: 3600 },
  // The defaults are kinder than a client may count on.
  rotateRefreshToken: true,
  clockTolerance: 0,
});

function mayIntrospect(_, client) {
  return client.clientId === RESOURCE_SERVER.client_id;
}

const accessTokens = [];
provider.on('access_token.saved', (token) => accessTokens.push(token.jti));

let tokenRequests = 0;
let granted = 0;
let refused = 0;
let grantsDestroyed = 0;
provider.on('grant.success', () => { granted += 1; });
provider.on('grant.error', () => { refused += 1; });
provider.on('grant.revoked', () => { grantsDestroyed += 1; });
authorizationServer.on('request', (request, response) => {
  if (request.url === '/token') tokenRequests += 1;
  provider.callback()(request, response);
});

/** Makes a refresh token as if somebody had logged in. */
async function mint() {
  const client = await provider.Client.find(CLIENT.client_id);
  const session = { accountId: 'somebody', clientId: CLIENT.client_id };
  const grant = new provider.Grant(session);
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save();
  const { accountId } = session;
  const gty = 'authorization_code';
  return new provider.RefreshToken({ accountId, client, grantId, gty, scope: SCOPE }).save();
}

// ===== the protected resource =====

const resourceServer = await listen();
let revoked = false;

const resources = {
  '/me': async () => true,
  // The first token that comes here is revoked before it is looked at.
  '/revokes-the-first': async (token) => {
    if (!revoked) await (await provider.AccessToken.find(token))?.destroy();
    revoked = true;
    return true;
  },
  '/rejects-all': async () => false,
};

resourceServer.on('request', async (request, response) => {
  const resource = resources[new URL(request.url, urlOf(resourceServer)).pathname];
  if (!resource) {
    response.writeHead(404).end();
    return;
  }
  const [, token] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
  if (!token) {
    // No token, no error code (RFC 6750 §3.1).
    response.writeHead(401, { 'www-authenticate': 'Bearer' }).end();
    return;
  }
  const { active, sub } = await resource(token) ? await introspect(token) : { active: false };
  if (!active) {
    response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end();
    return;
  }
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ sub }));
});

/** Asks the authorization server what it knows of a token (RFC 7662), over HTTP as a stranger would. */
async function introspect(token) {
  const { client_id, client_secret } = RESOURCE_SERVER;
  const credentials = `${client_id}:${encodeURIComponent(client_secret)}`;
  const answer = await fetch(`${issuer}/token/introspection`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(credentials).toString('base64')}` },
    body: new URLSearchParams({ token }),
  });
  if (!answer.ok) throw new Error(`introspection answered ${answer.status}`);
  return answer.json();
}

// ===== who asks =====

say({
  token_endpoint: `${issuer}/token`,
  api: urlOf(resourceServer),
  ...CLIENT,
  refresh_token: await mint(),
});
const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  if (line === 'revoke') {
    for (const token of accessTokens) await (await provider.AccessToken.find(token))?.destroy();
  }
  say({
    refresh_token: await mint(),
    token_requests: tokenRequests,
    granted,
    refused,
    grants_destroyed: grantsDestroyed,
    access_tokens: accessTokens.join('\n'),
  });
});
lines.on('close', () => process.exit());

async function listen() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

function urlOf(server) {
  return `http://127.0.0.1:${server.address().port}`;
}

function say(message) {
  console.log(JSON.stringify(message));
}

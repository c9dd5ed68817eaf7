// A certified OpenID provider for the tests of sign-in. Its users sign in by saying who they are.
//
// node provider.js <port> <redirect uri> <backchannel logout uri>
//
// Beside its own paths: POST /test/rotate makes a new signing key, and the old one is gone.

import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

const [port, redirectUri, logoutUri] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const newKey = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: randomUUID(), alg: 'RS256', use: 'sig',
});

const users = {
  anna: { groups: ['payments-team', 'everybody'], amr: ['pwd', 'otp'] },
  ben: { groups: ['everybody'], amr: ['pwd'] },
};

const stored = new Map();  // shared by the providers before and after a rotation

class Kept {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { stored.set(this.key(id), payload); }
  async find(id) { return stored.get(this.key(id)); }
  async findByUid(uid) { return [...stored.entries()].find(([k, v]) => k.startsWith(`${this.model}:`) && v.uid === uid)?.[1]; }
  async findByUserCode() { return undefined; }
  async destroy(id) { stored.delete(this.key(id)); }
  async consume(id) { const found = stored.get(this.key(id)); if (found) found.consumed = Math.floor(Date.now() / 1000); }
  async revokeByGrantId(grantId) { for (const [k, v] of stored) if (v.grantId === grantId) stored.delete(k); }
}

const cookieKeys = [randomUUID()];

const provider = (key) => {
  const made = new Provider(issuer, {
    adapter: Kept,
    clients: [{
      client_id: 'countroom', client_secret: 'a secret of the tests', redirect_uris: [redirectUri],
      response_types: ['code'], grant_types: ['authorization_code'], id_token_signed_response_alg: 'RS256',
      backchannel_logout_uri: logoutUri, backchannel_logout_session_required: true,
      post_logout_redirect_uris: [issuer],
    }, {
      client_id: 'another', client_secret: 'a secret of the tests', redirect_uris: [redirectUri],
      response_types: ['code'], grant_types: ['authorization_code'],
    }],
    jwks: { keys: [key] },
    cookies: { keys: cookieKeys },
    claims: { openid: ['sub', 'sid', 'amr'], groups: ['groups'] },
    scopes: ['openid', 'groups'],
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, groups: users[id]?.groups ?? [] }) }),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    // Its own guard against addresses inside the house would keep it from this machine, where the tests are.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    ttl: { Session: 3600, Grant: 3600, Interaction: 600, AccessToken: 600, IdToken: 600 },
  });
  return made;
};

let current = provider(newKey());

// The user says who they are in a header; consent is given.
const interact = async (req, res) => {
  const details = await current.interactionDetails(req, res);
  const who = req.headers['x-test-user'] ?? details.session?.accountId;
  const grant = new current.Grant({ accountId: who, clientId: details.params.client_id });
  grant.addOIDCScope(details.params.scope);
  const grantId = await grant.save();
  await current.interactionFinished(req, res, {
    login: { accountId: who, amr: users[who]?.amr ?? ['pwd'] }, consent: { grantId },
  }, { mergeWithLastSubmission: false });
};

createServer(async (req, res) => {
  try {
    if (req.url === '/test/rotate') {
      current = provider(newKey());
      res.end('{}');
    } else if (req.url.startsWith('/interaction/')) {
      await interact(req, res);
    } else {
      current.callback()(req, res);
    }
  } catch (error) {
    res.statusCode = 500;
    res.end(String(error.stack));
  }
}).listen(Number(port), '127.0.0.1', () => console.log(`listening on ${port}`));

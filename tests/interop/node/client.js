// A client in Node, made from proto/ alone with the stock packages, that checks the API against a
// running replica: `node client.js HOST:PORT`. Exit status 0 only if everything holds.
//
// Errors are told apart by ErrorDetail, both from grpc-status-details-bin, of which this library
// hands out raw bytes only, and from the plain trailers; never by text.
'use strict';

const path = require('node:path');
const assert = require('node:assert/strict');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const PROTO_ROOT = path.resolve(__dirname, '..', '..', '..', 'proto');
const definition = loader.loadSync(
  ['coordsvc/v1/coordination.proto', 'coordsvc/v1/cluster.proto'],
  { includeDirs: [PROTO_ROOT], keepCase: true, longs: String, enums: String, oneofs: true },
);
const { Coordination, Cluster } = grpc.loadPackageDefinition(definition).coordsvc.v1;

// The envelope of details is Google's, not ours.
const Status = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
`, { keepCase: true }).root.lookupType('Status');
const ErrorDetail = definition['coordsvc.v1.ErrorDetail'];

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, { deadline: Date.now() + 10_000 }, (error, response) =>
      error ? reject(error) : resolve(response));
  });
}

// The typed error of a refused call; fails if what the trailers say differs.
function detailOf(error) {
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  assert.ok(bytes, `no details came with: ${error.message}`);
  const status = Status.decode(bytes);
  assert.equal(status.code, error.code);
  const any = status.details.find((each) => each.type_url.endsWith('/coordsvc.v1.ErrorDetail'));
  assert.ok(any, 'no ErrorDetail among the details');
  const detail = ErrorDetail.deserialize(Buffer.from(any.value));
  assert.equal(`ERROR_CODE_${error.metadata.get('coordsvc-error')[0]}`, detail.code);
  const applied = error.metadata.get('coordsvc-applied')[0];
  assert.equal(`APPLIED_${applied.toUpperCase()}`, detail.applied);
  return detail;
}

async function refused(code, status, promise) {
  const error = await promise.then(() => null, (reason) => reason);
  assert.ok(error, `should have been refused: ${code}`);
  const detail = detailOf(error);
  assert.equal(detail.code, `ERROR_CODE_${code}`);
  assert.equal(error.code, grpc.status[status]);
  assert.equal(detail.applied, 'APPLIED_NO');
  return detail;
}

const checks = {
  async 'create, get, set, delete'({ ask, root }) {
    const created = await ask('Create', { path: `${root}/a`, data: Buffer.from('one') });
    assert.equal(created.path, `${root}/a`);
    assert.equal(created.stat.version ?? '0', '0');
    assert.equal(created.header.zxid, created.stat.czxid);
    assert.notEqual(created.header.cluster_id, '0');
    assert.equal((await ask('GetData', { path: `${root}/a` })).data.toString(), 'one');
    const set = await ask('SetData', {
      path: `${root}/a`, data: Buffer.from('two'), expected_version: 0 });
    assert.equal(set.stat.version, '1');
    const got = await ask('GetData', {
      path: `${root}/a`, consistency: 'READ_CONSISTENCY_LINEARIZABLE' });
    assert.equal(got.data.toString(), 'two');
    assert.equal(got.stat.data_length, 3);
    await ask('Delete', { path: `${root}/a`, expected_version: 1 });
    assert.ok(!(await ask('Exists', { path: `${root}/a` })).stat);
  },

  async 'null data is not empty data'({ ask, root }) {
    await ask('Create', { path: `${root}/null` });
    await ask('Create', { path: `${root}/empty`, data: Buffer.alloc(0) });
    assert.equal((await ask('GetData', { path: `${root}/null` })).data, undefined);
    assert.equal((await ask('GetData', { path: `${root}/empty` })).data.length, 0);
    await ask('SetData', { path: `${root}/empty` });
    assert.equal((await ask('GetData', { path: `${root}/empty` })).data, undefined);
  },

  async 'an absent version is not version 0'({ ask, root }) {
    const node = `${root}/version`;
    await ask('Create', { path: node });
    await ask('SetData', { path: node });
    await ask('SetData', { path: node, expected_version: -1 });
    await refused('BAD_VERSION', 'ABORTED', ask('SetData', { path: node, expected_version: 0 }));
    await refused('BAD_ARGUMENTS', 'INVALID_ARGUMENT',
      ask('SetData', { path: node, expected_version: -2 }));
  },

  async 'refusals by code'({ ask, root }) {
    const detail = await refused('NO_NODE', 'NOT_FOUND', ask('GetData', { path: `${root}/none` }));
    assert.equal(detail.path, `${root}/none`);
    await refused('NODE_EXISTS', 'ALREADY_EXISTS', ask('Create', { path: root }));
    await refused('NOT_EMPTY', 'FAILED_PRECONDITION', ask('Delete', { path: root }));
    await refused('BAD_ARGUMENTS', 'INVALID_ARGUMENT', ask('Create', { path: 'no-slash' }));
    await refused('BAD_ARGUMENTS', 'INVALID_ARGUMENT',
      ask('Create', { path: `${root}/e`, mode: 'CREATE_MODE_EPHEMERAL' }));
    await refused('INVALID_ACL', 'INVALID_ARGUMENT',
      ask('Create', { path: `${root}/i`, acl: [{ permissions: 31, scheme: 'none', id: '' }] }));
  },

  async 'a long path does not turn an error into another'({ ask, root }) {
    const long = `${root}/${'x'.repeat(4000)}`;
    const detail = await refused('NO_NODE', 'NOT_FOUND', ask('GetData', { path: long }));
    assert.ok(Buffer.byteLength(detail.path) <= 1024);
  },

  async 'children, sorted, in pages'({ ask, root }) {
    const parent = `${root}/children`;
    await ask('Create', { path: parent });
    for (const name of ['c', 'a', 'b']) {
      await ask('Create', { path: `${parent}/${name}`, data: Buffer.from(name) });
    }
    const names = [];
    let token = '';
    do {
      const page = await ask('GetChildren', {
        path: parent, page_size: 2, page_token: token, include_data: true, include_stat: true });
      for (const child of page.children) {
        assert.equal(child.data.toString(), child.name);
        assert.equal(child.stat.data_length, 1);
        names.push(child.name);
      }
      token = page.next_page_token;
    } while (token);
    assert.deepEqual(names, ['a', 'b', 'c']);
  },

  async 'a multi is all or nothing'({ ask, root }) {
    const detail = await refused('BAD_VERSION', 'ABORTED', ask('Multi', { operations: [
      { create: { path: `${root}/m` } },
      { check: { path: root, expected_version: 9 } },
    ] }));
    assert.equal(detail.operation_index, 1);
    assert.ok(!(await ask('Exists', { path: `${root}/m` })).stat);
    const done = await ask('Multi', { operations: [
      { create: { path: `${root}/m` } },
      { set_data: { path: `${root}/m`, data: Buffer.from('x'), expected_version: 0 } },
      { delete: { path: `${root}/m` } },
    ] });
    assert.deepEqual(done.results.map((each) => each.result), ['create', 'set_data', 'delete']);
  },

  async 'a session, its ephemeral, its request numbers'({ ask, root }) {
    const { credentials } = await ask('OpenSession', { timeout_ms: 10_000, client_name: 'node' });
    const context = { session: credentials, request_number: 1 };
    const request = {
      context, path: `${root}/e-`, mode: 'CREATE_MODE_EPHEMERAL_SEQUENTIAL' };
    const first = await ask('Create', request);
    assert.equal(first.stat.ephemeral_owner, credentials.session_id);
    const again = await ask('Create', request);
    assert.equal(again.path, first.path);
    assert.equal(again.header.zxid, first.header.zxid);
    await refused('REQUEST_OUT_OF_ORDER', 'FAILED_PRECONDITION',
      ask('Create', { ...request, context: { ...context, request_number: 3 } }));
    assert.ok(Number((await ask('Heartbeat', { credentials })).timeout_ms) > 0);
    const wrong = { ...credentials, password: Buffer.alloc(16) };
    await refused('SESSION_EXPIRED', 'FAILED_PRECONDITION',
      ask('Heartbeat', { credentials: wrong }));
    await ask('CloseSession', { context: { session: credentials } });
    assert.ok(!(await ask('Exists', { path: first.path })).stat);
  },

  async 'the cluster has a leader'({ cluster }) {
    const status = await call(cluster, 'Status', {});
    const roles = status.replicas.map((each) => each.role);
    assert.equal(roles.filter((role) => role === 'REPLICA_ROLE_LEADER').length, 1);
  },
};

async function main() {
  const [address] = process.argv.slice(2);
  if (!address) throw new Error('usage: node client.js HOST:PORT');
  const options = { 'grpc.enable_http_proxy': 0 };
  const client = new Coordination(address, grpc.credentials.createInsecure(), options);
  const cluster = new Cluster(address, grpc.credentials.createInsecure(), options);
  const ask = (method, request) => call(client, method, request);

  const root = `/interop-node-${process.pid}-${Date.now()}`;
  await ask('Create', { path: root });
  let failures = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check({ ask, cluster, root });
      console.log(`ok      ${name}`);
    } catch (error) {
      failures += 1;
      console.log(`FAILED  ${name}\n${error.stack}`);
    }
  }
  client.close();
  cluster.close();
  process.exitCode = failures ? 1 : 0;
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});

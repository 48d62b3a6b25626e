// Writes small databases with RocksDB 11.8.1 that hold what its WAL and MANIFEST can hold, then exits without closing
// them, as a killed server does. Usage: shapes CASE DIRECTORY
#include <rocksdb/c.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The bzip2 that the rocksdb crate builds leaves this to the program.
void bz_internal_error(int e) { fprintf(stderr, "bzip2: %d\n", e); abort(); }

static char* err = NULL;
#define OK()                                                       \
  do {                                                             \
    if (err) {                                                     \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, err);     \
      exit(1);                                                     \
    }                                                              \
  } while (0)

static char noise_buffer[200000];
// Bytes that do not compress, the same in every run.
static const char* noise(size_t n) {
  uint64_t x = 88172645463325252ull;
  for (size_t i = 0; i < n; i++) {
    x ^= x << 13; x ^= x >> 7; x ^= x << 17;
    noise_buffer[i] = (char)(x >> 32);
  }
  return noise_buffer;
}

// A bytewise comparator with 8-byte timestamps, larger timestamps first.
static int cmp(const char* a, size_t al, const char* b, size_t bl) {
  int r = memcmp(a, b, al < bl ? al : bl);
  return r ? r : (al < bl ? -1 : al > bl);
}
static int ts_compare_ts(void* s, const char* a, size_t al, const char* b, size_t bl) {
  (void)s; (void)al; (void)bl;
  uint64_t x, y;
  memcpy(&x, a, 8); memcpy(&y, b, 8);
  return x < y ? -1 : x > y;
}
static int ts_compare_without(void* s, const char* a, size_t al, unsigned char at, const char* b, size_t bl, unsigned char bt) {
  (void)s;
  return cmp(a, at ? al - 8 : al, b, bt ? bl - 8 : bl);
}
static int ts_compare(void* s, const char* a, size_t al, const char* b, size_t bl) {
  int r = ts_compare_without(s, a, al, 1, b, bl, 1);
  return r ? r : -ts_compare_ts(s, a + al - 8, 8, b + bl - 8, 8);
}
static const char* ts_name(void* s) { (void)s; return "pitr.test.u64ts"; }
static void nothing(void* s) { (void)s; }

static rocksdb_options_t* options(void) {
  rocksdb_options_t* o = rocksdb_options_create();
  rocksdb_options_set_create_if_missing(o, 1);
  rocksdb_options_set_info_log_level(o, 4);
  return o;
}
static void put(rocksdb_t* db, rocksdb_writeoptions_t* w, rocksdb_column_family_handle_t* cf, const char* k, const char* v, size_t vl) {
  if (cf) rocksdb_put_cf(db, w, cf, k, strlen(k), v, vl, &err); else rocksdb_put(db, w, k, strlen(k), v, vl, &err);
  OK();
}

// zstd WAL, predecessor records, sizes of user-defined timestamps; `recycle` for recyclable headers.
static void zstd_timestamps(const char* dir, int recycle) {
  rocksdb_options_t* o = options();
  rocksdb_options_set_wal_compression(o, 7);
  if (recycle) rocksdb_options_set_recycle_log_file_num(o, 2); else rocksdb_options_set_track_and_verify_wals(o, 1);
  rocksdb_t* db = rocksdb_open(o, dir, &err); OK();
  if (!recycle) { rocksdb_disable_file_deletions(db, &err); OK(); }
  rocksdb_options_t* t = options();
  rocksdb_options_set_comparator(t, rocksdb_comparator_with_ts_create(NULL, nothing, ts_compare, ts_compare_ts, ts_compare_without, ts_name, 8));
  rocksdb_column_family_handle_t* ts = rocksdb_create_column_family(db, t, "timestamped", &err); OK();
  rocksdb_writeoptions_t* w = rocksdb_writeoptions_create();
  rocksdb_flushoptions_t* f = rocksdb_flushoptions_create();
  put(db, w, NULL, "before", "any timestamp", 13);
  for (int wal = 0; wal < 3; wal++) {
    char key[32], stamp[8] = {(char)(wal + 1)};
    for (int i = 0; i < 3; i++) {
      sprintf(key, "key %d.%d", wal, i);
      rocksdb_put_cf_with_ts(db, w, ts, key, strlen(key), stamp, 8, "stamped value", 13, &err); OK();
      put(db, w, NULL, key, "a value that compresses compresses compresses compresses compresses", 66);
    }
    put(db, w, NULL, "noise", noise(wal == 0 ? 70000 : 40000), wal == 0 ? 70000 : 40000);
    if (wal < 2) { rocksdb_flush(db, f, &err); OK(); rocksdb_flush_cf(db, f, ts, &err); OK(); }
  }
  // After the flush of one column family only, a WAL that is not the first may be short: the recycled file's tail is old.
}

// Two-phase commit under a write policy: 0 WriteCommitted, 1 WritePrepared, 2 WriteUnprepared.
static void two_phase(const char* dir, int policy) {
  rocksdb_options_t* o = options();
  rocksdb_transactiondb_options_t* to = rocksdb_transactiondb_options_create();
  rocksdb_transactiondb_options_set_write_policy(to, policy);
  rocksdb_transactiondb_t* db = rocksdb_transactiondb_open(o, to, dir, &err); OK();
  rocksdb_writeoptions_t* w = rocksdb_writeoptions_create();
  rocksdb_transaction_options_t* x = rocksdb_transaction_options_create();
  rocksdb_transactiondb_put(db, w, "plain", 5, "1", 1, &err); OK();
  const char* names[] = {"committed", "rolled back", "pending"};
  for (int i = 0; i < 3; i++) {
    rocksdb_transaction_t* t = rocksdb_transaction_begin(db, w, x, NULL);
    rocksdb_transaction_set_name(t, names[i], strlen(names[i]), &err); OK();
    for (int k = 0; k <= i; k++) {
      char key[16]; sprintf(key, "t%d k%d", i, k);
      rocksdb_transaction_put(t, key, strlen(key), names[i], strlen(names[i]), &err); OK();
    }
    rocksdb_transaction_prepare(t, &err); OK();
    rocksdb_transactiondb_put(db, w, "between", 7, names[i], strlen(names[i]), &err); OK();
    if (i == 0) { rocksdb_transaction_commit(t, &err); OK(); }
    if (i == 1) { rocksdb_transaction_rollback(t, &err); OK(); }
  }
  rocksdb_transactiondb_put(db, w, "after", 5, "2", 1, &err); OK();
}

// What a MANIFEST can hold: atomic groups, blob files, compaction, move, ingestion, dropped range, dropped family,
// tracked WALs; and the other operations of a batch.
static void manifest(const char* dir) {
  rocksdb_options_t* o = options();
  rocksdb_options_set_atomic_flush(o, 1);
  rocksdb_options_set_enable_blob_files(o, 1);
  rocksdb_options_set_min_blob_size(o, 500);
  rocksdb_options_set_enable_blob_gc(o, 1);
  rocksdb_options_set_disable_auto_compactions(o, 1);
  rocksdb_options_set_uint64add_merge_operator(o);
  rocksdb_options_set_track_and_verify_wals_in_manifest(o, 1);
  rocksdb_t* db = rocksdb_open(o, dir, &err); OK();
  rocksdb_disable_file_deletions(db, &err); OK();
  rocksdb_column_family_handle_t* a = rocksdb_create_column_family(db, o, "a", &err); OK();
  rocksdb_column_family_handle_t* b = rocksdb_create_column_family(db, o, "b", &err); OK();
  rocksdb_writeoptions_t* w = rocksdb_writeoptions_create();
  rocksdb_writeoptions_t* synced = rocksdb_writeoptions_create();
  rocksdb_writeoptions_set_sync(synced, 1);
  rocksdb_flushoptions_t* f = rocksdb_flushoptions_create();
  rocksdb_column_family_handle_t* all[] = {a, b};
  for (int round = 0; round < 3; round++) {
    rocksdb_writebatch_t* batch = rocksdb_writebatch_create();
    rocksdb_writebatch_put_log_data(batch, "a remark", 8);
    rocksdb_writebatch_put(batch, "k1", 2, noise(600), 600);
    rocksdb_writebatch_put_cf(batch, a, "k2", 2, noise(700), 700);
    rocksdb_writebatch_merge_cf(batch, b, "counter", 7, "\1\0\0\0\0\0\0\0", 8);
    rocksdb_writebatch_delete_cf(batch, a, "gone", 4);
    rocksdb_writebatch_singledelete_cf(batch, b, "once", 4);
    rocksdb_writebatch_delete_range_cf(batch, a, "x", 1, "z", 1);
    rocksdb_write(db, round == 1 ? synced : w, batch, &err); OK();
    rocksdb_flush_cfs(db, f, all, 2, &err); OK();
    rocksdb_flush(db, f, &err); OK();
  }
  rocksdb_compact_range_cf(db, a, NULL, 0, NULL, 0);
  rocksdb_compact_range(db, NULL, 0, NULL, 0);
  char sst[4096];
  snprintf(sst, sizeof sst, "%s/ingested", dir);
  rocksdb_sstfilewriter_t* s = rocksdb_sstfilewriter_create(rocksdb_envoptions_create(), o);
  rocksdb_sstfilewriter_open(s, sst, &err); OK();
  rocksdb_sstfilewriter_put(s, "m1", 2, "from outside", 12, &err); OK();
  rocksdb_sstfilewriter_finish(s, &err); OK();
  const char* list[] = {sst};
  rocksdb_ingest_external_file_cf(db, b, list, 1, rocksdb_ingestexternalfileoptions_create(), &err); OK();
  rocksdb_delete_file_in_range_cf(db, b, "m", 1, "n", 1, &err); OK();
  put(db, w, a, "in a family that goes", "1", 1);
  rocksdb_drop_column_family(db, a, &err); OK();
  put(db, w, b, "last", "2", 1);
}

// Opens the database of `manifest` again: a new MANIFEST, with what recovery flushes.
static void reopen(const char* dir) {
  rocksdb_options_t* o = options();
  rocksdb_options_set_enable_blob_files(o, 1);
  rocksdb_options_set_disable_auto_compactions(o, 1);
  rocksdb_options_set_uint64add_merge_operator(o);
  const char* names[] = {"default", "b"};
  const rocksdb_options_t* each[] = {o, o};
  rocksdb_column_family_handle_t* handles[2];
  rocksdb_t* db = rocksdb_open_column_families(o, dir, 2, names, each, handles, &err); OK();
  rocksdb_writeoptions_t* w = rocksdb_writeoptions_create();
  put(db, w, NULL, "after the reopen", "1", 1);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const char *c = argv[1], *dir = argv[2];
  if (!strcmp(c, "zstd-timestamps")) zstd_timestamps(dir, 0);
  else if (!strcmp(c, "zstd-recycled")) zstd_timestamps(dir, 1);
  else if (!strcmp(c, "write-committed")) two_phase(dir, 0);
  else if (!strcmp(c, "write-prepared")) two_phase(dir, 1);
  else if (!strcmp(c, "write-unprepared")) two_phase(dir, 2);
  else if (!strcmp(c, "manifest")) manifest(dir);
  else if (!strcmp(c, "reopen")) reopen(dir);
  else return 2;
  _exit(0);
}

/*
 * Peer of the replay benchmark: for each entry of a binary measurement list one SHA-1 over the template data (compared
 * with the stored digest), one SHA-256 over it, and one SHA-256 for the extend. Low-level calls of libcrypto: without the
 * cost of fetching an algorithm for each hash. Prints the best time of a replay in nanoseconds, and PCR 10.
 * Usage: ima-replay LIST ROUNDS
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint32_t u32(const uint8_t *at) {
  return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void sha256(const uint8_t *data, size_t length, uint8_t *out) {
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, data, length);
  SHA256_Final(out, &context);
}

static int replay(const uint8_t *list, size_t length, uint8_t pcr[64]) {
  memset(pcr, 0, 32);
  for (size_t at = 0; at < length;) {
    if (at + 28 > length) return -1;
    size_t name = u32(list + at + 24);
    if (name > 64 || at + 28 + name + 4 > length) return -1;
    const uint8_t *data = list + at + 28 + name + 4;
    size_t size = u32(list + at + 28 + name);
    if (size > length - at - 32 - name) return -1;
    uint8_t digest[20];
    SHA_CTX context;
    SHA1_Init(&context);
    SHA1_Update(&context, data, size);
    SHA1_Final(digest, &context);
    if (memcmp(digest, list + at + 4, 20) != 0) return -1;
    sha256(data, size, pcr + 32);
    sha256(pcr, 64, pcr);
    at += 32 + name + size;
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  FILE *file = fopen(argv[1], "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) return 1;
  long length = ftell(file);
  rewind(file);
  uint8_t *list = malloc((size_t)length);
  if (list == NULL || fread(list, 1, (size_t)length, file) != (size_t)length) return 1;
  uint8_t pcr[64];
  long long best = -1;
  for (int round = atoi(argv[2]); round > 0; round--) {
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    if (replay(list, (size_t)length, pcr) != 0) return 1;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    long long took = (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec;
    if (best < 0 || took < best) best = took;
  }
  printf("%lld ", best);
  for (int index = 0; index < 32; index++) printf("%02x", pcr[index]);
  printf("\n");
  return 0;
}

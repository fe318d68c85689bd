/* The header alone, included twice. */
#include "ringpool.h"
#include "ringpool.h"

int main(void) {
    return rp_abi_version() == RP_ABI_VERSION ? 0 : 1;
}

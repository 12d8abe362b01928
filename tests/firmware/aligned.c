/* A plugin of QEMU (7.2 and later) that reports accesses to memory that are not at a multiple of their size: emulated
 * RISC-V machines allow them, small cores trap. Prints `MISALIGNED pc function` for each such instruction; the
 * function is `?` where QEMU does not know it. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What qemu-plugin.h declares and is used here; distributions do not all package it. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { CB_NO_REGS = 0, MEM_READ_WRITE = 3 };
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(uint32_t);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int,
                                      int, void *);

int qemu_plugin_version = 1;

/* An instruction that accesses memory. */
struct place {
    uint64_t pc;
    const char *function;
    int reported;
};

enum { PLACES = 1 << 20 };
static struct place places[PLACES];
static size_t count;

static void on_access(unsigned cpu, uint32_t info, uint64_t address, void *data) {
    struct place *place = data;
    (void)cpu;
    if (place->reported || !(address & ((UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1)))
        return;
    place->reported = 1;
    fprintf(stderr, "MISALIGNED %#" PRIx64 " %s\n", place->pc, place->function ? place->function : "?");
}

static void on_block(uint64_t id, struct qemu_plugin_tb *block) {
    size_t i;
    (void)id;
    for (i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        struct place *place = &places[count];
        if (count == PLACES - 1)
            fprintf(stderr, "MISALIGNED 0x0 too much code\n");
        else
            count++;
        place->pc = qemu_plugin_insn_vaddr(insn);
        place->function = qemu_plugin_insn_symbol(insn);
        qemu_plugin_register_vcpu_mem_cb(insn, on_access, CB_NO_REGS, MEM_READ_WRITE, place);
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    return 0;
}

/* A plugin of QEMU (7.2 and later) that reports accesses to memory that are not at a multiple of their size: emulated
 * RISC-V machines allow them, small cores trap. Prints `MISALIGNED pc` for each such instruction. */
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
unsigned qemu_plugin_mem_size_shift(uint32_t);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int,
                                      int, void *);

int qemu_plugin_version = 1;

enum { SEEN = 64 };
static uintptr_t seen[SEEN];
static unsigned count;

static void on_access(unsigned cpu, uint32_t info, uint64_t address, void *pc) {
    unsigned i;
    (void)cpu;
    if (!(address & ((UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1)))
        return;
    for (i = 0; i < count; i++)
        if (seen[i] == (uintptr_t)pc)
            return;
    if (count == SEEN)
        return;
    seen[count++] = (uintptr_t)pc;
    fprintf(stderr, "MISALIGNED %#" PRIxPTR "\n", (uintptr_t)pc);
}

static void on_block(uint64_t id, struct qemu_plugin_tb *block) {
    size_t i;
    (void)id;
    for (i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        void *pc = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
        qemu_plugin_register_vcpu_mem_cb(insn, on_access, CB_NO_REGS, MEM_READ_WRITE, pc);
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    return 0;
}

/*
 * kws.ld: where the sections of the network "it's "kws"" go. Made by corerope 0.1.0; do not edit.
 *
 * For the TI linkers. Give it in front of the main command file, so that its rules are the first that match:
 *
 *     tiarmclang ... -Wl,kws.ld -Wl,board.cmd
 *
 * What has no name here (.text.kws.*, .rodata.kws.*, .bss.kws.*) is placed with .text, .rodata and .bss.
 * Load and run addresses are the same: nothing is copied at start-up.
 *
 * .itcm                              40 bytes  machine code
 * .qspi                            2688 bytes  parameters
 * .sdram                          16000 bytes  the arena
 * .qspi-2                            24 bytes  parameters
 * .text.kws                         300 bytes  machine code
 */

MEMORY
{
    QSPI (RX) : origin = 0x90000000, length = 0x1000000
    SDRAM (RW) : origin = 0xc0000000, length = 0x800000
}

SECTIONS
{
    .itcm : { *(.itcm) } > ITCM, ALIGN(16)
    .qspi : { *(.qspi) } > QSPI, ALIGN(64)
    .sdram : { *(.sdram) } > SDRAM, ALIGN(16), type = NOINIT
    ".qspi-2" : { *(".qspi-2") } > QSPI, ALIGN(8)
}

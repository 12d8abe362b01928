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
 * .text.kws                         344 bytes  machine code
 * .rodata.kws                      2560 bytes  parameters
 * .bss.kws                        16000 bytes  the arena
 */

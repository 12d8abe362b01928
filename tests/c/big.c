/* Runs the network "net" on the file "in" and writes its result to "out": with its parameters in the program, or with
 * -DSTREAMED read from "net.params", or with -DEXTERNAL mapped, one operator at a time, pages of the image given back after
 * each. Prints how many KiB of memory were resident at most: `PEAK bound run`. -DINPUT_BYTES, -DOUTPUT_BYTES. */
#define _DEFAULT_SOURCE
#include "net.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int8_t input[INPUT_BYTES], output[OUTPUT_BYTES];

/* The most memory that was ever resident, in KiB. */
static long peak(void) {
    char line[128];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (status)
        fclose(status);
    return kib;
}

#ifdef STREAMED
static uint32_t largest;
static int32_t read_image(void *context, uint64_t offset, void *destination, uint32_t length) {
    if (length > largest)
        largest = length;
    return (int32_t)pread(*(int *)context, destination, length, (off_t)offset);
}
#endif

int main(void) {
    const struct net_inputs inputs = {input};
    const struct net_outputs outputs = {output};
    long bound;
    FILE *file = fopen("in", "rb");
    if (!file || fread(input, 1, sizeof input, file) != sizeof input)
        return 2;
    fclose(file);
#if defined STREAMED
    {
        static uint8_t buffer[NET_PARAMETERS_HEADER_SIZE];
        int image = open("net.params", O_RDONLY);
        struct net_parameters parameters = {read_image, 0, &image, 0};
        if (net_bind(&parameters, buffer) != NET_OK)
            return 3;
        bound = peak();
        if (net_run(&inputs, &outputs, &parameters) != NET_OK || largest > NET_PARAMETERS_BUFFER_SIZE)
            return 4;
    }
#elif defined EXTERNAL
    {
        int fd = open("net.params", O_RDONLY);
        void *image = mmap(0, NET_PARAMETERS_SIZE, PROT_READ, MAP_SHARED, fd, 0);
        struct net_parameters parameters;
        uint32_t step = 0;
        int32_t status;
        /* The kernel must not map pages that were not asked for. */
        if (image == MAP_FAILED || madvise(image, NET_PARAMETERS_SIZE, MADV_RANDOM) != 0)
            return 2;
        if (net_bind(&parameters, image, NET_PARAMETERS_SIZE) != NET_OK)
            return 3;
        bound = peak();
        while ((status = net_step(&step, &inputs, &outputs, &parameters)) == NET_MORE)
            madvise(image, NET_PARAMETERS_SIZE, MADV_DONTNEED);
        if (status != NET_OK)
            return 4;
    }
#else
    bound = peak();
    if (net_run(&inputs, &outputs) != NET_OK)
        return 4;
#endif
    printf("PEAK %ld %ld\n", bound, peak());
    file = fopen("out", "wb");
    return !file || fwrite(output, 1, sizeof output, file) != sizeof output || fclose(file) != 0;
}

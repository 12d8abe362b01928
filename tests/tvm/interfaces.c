/* Runs a model of fixtures/tvm once through the interface that it was built with: `program INPUT OUTPUT [IMAGE]`. */
#include MODEL_H
#include <stdio.h>

static int8_t x[8], y[4];

static size_t load(const char *path, void *to, size_t size) {
    FILE *file = fopen(path, "rb");
    size_t length = file ? fread(to, 1, size, file) : 0;
    if (file)
        fclose(file);
    return length;
}

#ifdef HOOKS
static void count(void *context, uint32_t step) {
    unsigned *calls = context;
    *calls = step == *calls ? step + 1 : 1000;
}
#endif

int main(int argc, char **argv) {
    const struct PREFIX(inputs) inputs = {x};
    const struct PREFIX(outputs) outputs = {y};
    int32_t status = -1;
    FILE *file;
    if (argc < 3 || load(argv[1], x, sizeof x) != sizeof x)
        return 100;
#if defined(EXTERNAL)
    static _Alignas(64) uint8_t image[4096];
    struct PREFIX(parameters) parameters;
    status = PREFIX(bind)(&parameters, image, load(argv[3], image, sizeof image));
    if (status == 0)
        status = PREFIX(run)(&inputs, &outputs, &parameters);
#elif defined(HOOKS)
    unsigned calls = 0;
    const struct PREFIX(hooks) hooks = {count, 0, &calls};
    status = PREFIX(run)(&inputs, &outputs, &hooks);
    if (calls != HOOKS)
        return 101;
#elif defined(STEP)
    uint32_t step = 0;
    while ((status = PREFIX(step)(&step, &inputs, &outputs)) == STEP)
        continue;
#else
    status = PREFIX(run)(&inputs, &outputs);
#endif
    if (status != 0)
        return 102;
    file = fopen(argv[2], "wb");
    if (!file || fwrite(y, 1, sizeof y, file) != sizeof y || fclose(file))
        return 103;
    return 0;
}

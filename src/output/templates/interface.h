/*
 * {{ file }}: the C interface of the network "{{ title }}". Made by corerope {{ version }}; do not edit.
 *
 * Model:  {{ source }}
 * Target: {{ target }}
 *
{% if pointers %}
{% for port in (outputs if rows else inputs + outputs) %}
 *     static {{ port.ctype }} {{ port.member }}[{{ port.macro }}_SIZE];
{% endfor %}
{% endif %}
{% if caller and pools %}
{% for pool in pools %}
{% if pool.used %}
 *     static uint8_t {{ pool.member }}[{{ pool.macro }}_SIZE] __attribute__((aligned({{ p }}_ARENA_ALIGN), section("...")));
{% endif %}
{% endfor %}
 *     const struct {{ model }}_arenas arenas = { {% for pool in pools %}{{ pool.member if pool.used else "0" }}{{ ", " if not loop.last }}{% endfor %} };
{% elif caller %}
 *     static uint8_t arena[{{ p }}_ARENA_SIZE] __attribute__((aligned({{ p }}_ARENA_ALIGN)));
{% endif %}
{% if pointers %}
{% if inputs and not rows %}
 *     const struct {{ model }}_inputs inputs = { {{ inputs | map(attribute="member") | join(", ") }} };
{% endif %}
 *     const struct {{ model }}_outputs outputs = { {{ outputs | map(attribute="member") | join(", ") }} };
 *
{% endif %}
{% if rows %}
 *     const struct {{ model }}_rows rows = { read_row, context };
 *
{% endif %}
{% if outside and outside.streamed %}
 *     struct {{ model }}_parameters parameters = { read, 0, context, 0 };
 *     if ({{ outside.bind }}(&parameters, buffer) != {{ p }}_OK)
 *         ...
{% elif outside %}
 *     struct {{ model }}_parameters parameters;
 *     if ({{ outside.bind }}(&parameters, image, size) != {{ p }}_OK)
 *         ...
{% endif %}
 *     if ({{ run }}({{ arguments }}) != {{ p }}_OK)
 *         ...
 *
{% if external %}
 * The code behind it calls external functions{% if callbacks %} and the application's callbacks{% endif %} and nothing else; their stack is not counted in {{ p }}_STACK_SIZE.
{% else %}
 * The code behind it calls nothing{% if callbacks %} but the application's callbacks{% endif %}, allocates nothing and uses at most {{ p }}_STACK_SIZE bytes of stack.
{% endif %}
{% if allocates %}
 * One run at a time, of all models with kernels of TVM: these share an allocator.
{% elif caller %}
 * Runs with different arenas may overlap in time.
{% else %}
 * One run at a time: the arena of {{ arena_size }} bytes is static{% if shared %}, and other networks of the library share it{% endif %}.
{% endif %}
 */
#ifndef {{ p }}_H
#define {{ p }}_H

{% if outside and not outside.streamed %}
#include <stddef.h>
{% endif %}
#include <stdint.h>

{% for guard in guards %}
#if {{ guard.unless }}
#error "{{ file }}: {{ guard.message }}"
#endif
{% endfor %}

/*
 * This header and the library are of one build. With a library of another build, linking ends with
 * "undefined reference to {{ functions[0].own }}".
 */
{% for function in functions %}
#define {{ function.name }} {{ function.own }}
{% endfor %}

#ifdef __cplusplus
extern "C" {
#endif

/* Results of {{ run }}. */
{% for status in statuses %}
#define {{ p }}_{{ status.name }} {{ status.value }} /* {{ status.about }} */
{% endfor %}

{% if caller or not pointers %}
/* The arena: all memory that a run uses beside the stack. */
{% else %}
/* Bytes of the arena, which is static: all memory that a run uses beside the stack. */
{% endif %}
{% for pool in pools %}
#define {{ pool.macro }}_SIZE {{ pool.size }} /* in {{ pool.name }} */
{% else %}
#define {{ p }}_ARENA_SIZE {{ arena_size }}
{% endfor %}
#define {{ p }}_ARENA_ALIGN {{ arena_align }}

/* The deepest stack of {{ run }}{% if outside or step %} and the other functions{% endif %} in bytes, its return address included{% if external and callbacks %}, that of external functions and callbacks not{% elif external %}, that of external functions not{% elif callbacks %}, that of callbacks not{% endif %}. */
#define {{ p }}_STACK_SIZE {{ stack }}
{% if outside %}

/* The image of parameters: a file of its own, {{ file | replace(".h", ".params") }}. */
#define {{ p }}_PARAMETERS_SIZE {{ outside.size }}
#define {{ p }}_PARAMETERS_HEADER_SIZE {{ outside.header }}
#define {{ p }}_PARAMETERS_FINGERPRINT "{{ outside.fingerprint }}"
{% if outside.streamed %}
/* Bytes that are asked for at once, at most; two buffers for them are in the arena, aligned to _ALIGN. */
#define {{ p }}_PARAMETERS_BUFFER_SIZE {{ outside.buffer }}
{% endif %}
#define {{ p }}_PARAMETERS_ALIGN {{ outside.align }}
{% endif %}
{% if steps is not none %}

/* Operators of a run. */
#define {{ p }}_STEPS {{ steps | length }}u
{% for step in steps %}
/* {{ loop.index0 }}: {{ step }} */
{% endfor %}
{% endif %}
{% for group in [{"word": "Input", "ports": inputs}, {"word": "Output", "ports": outputs}] %}
{% for port in group.ports %}

/* {{ group.word }} {{ loop.index0 }}: "{{ port.name }}", {{ port.dtype }}{{ port.dims }}{% if port.scale %}, real value = scale * (element - zero point){% endif %}. */
#define {{ port.macro }}_SIZE {{ port.elements }}
#define {{ port.macro }}_BYTES {{ port.bytes }}
#define {{ port.macro }}_RANK {{ port.rank }}
{% if port.shape %}
#define {{ port.macro }}_SHAPE { {{ port.shape | join(", ") }} }
{% endif %}
{% if port.scale %}
#define {{ port.macro }}_SCALE {{ port.scale }}
#define {{ port.macro }}_ZERO_POINT {{ port.zero_point }}
{% endif %}
{% if port.offset is not none %}
#define {{ port.macro }}_OFFSET {{ port.offset }} /* in the arena{% if port.pool %} in {{ port.pool }}{% endif %} */
{% endif %}
{% endfor %}
{% endfor %}

{% if rows %}
/* Rows of the input, and elements and bytes of each. */
#define {{ p }}_INPUT_ROWS {{ rows.count }}
#define {{ p }}_INPUT_ROW_SIZE {{ rows.elements }}
#define {{ p }}_INPUT_ROW_BYTES {{ rows.bytes }}

/*
 * What gives the input, row by row. `read` writes row number `row`, below {{ p }}_INPUT_ROWS, to `destination`,
 * {{ p }}_INPUT_ROW_BYTES bytes in the arena, and returns 0. A run asks for rows in rising order, for
 * none twice, and not for those that no operator reads. Any other result ends it with {{ p }}_ERROR_INPUT.
 */
struct {{ model }}_rows {
    int32_t (*read)(void *context, uint32_t row, void *destination);
    void *context;
};

{% endif %}
{% if pointers and not rows %}
/* Where the inputs are: one pointer each, in the model's order. They are read in place and never written. */
struct {{ model }}_inputs {
{% for port in inputs %}
    const {{ port.ctype }} *{{ port.member }}; /* {{ port.macro }}_SIZE elements */
{% else %}
    const void *unused;
{% endfor %}
};

{% endif %}
{% if pointers %}
/* Where the outputs go. They overlap neither the inputs nor one another. */
struct {{ model }}_outputs {
{% for port in outputs %}
    {{ port.ctype }} *{{ port.member }}; /* {{ port.macro }}_SIZE elements */
{% endfor %}
};

{% endif %}
{% if outside and outside.streamed %}
/*
 * Where parameters come from. Set the first three members, then bind; `bound` is {{ outside.bind }}'s.
 *
 * `read` delivers `length` bytes from `offset` of the image at `destination` and returns `length`. What it returns
 * instead fails the run: a negative number is {{ p }}_ERROR_READ, any other {{ p }}_ERROR_SHORT_READ.
 *
 * Where a transfer runs by itself (DMA), `read` only starts it and `wait` returns what `read` would have, once the bytes
 * are there. `wait` is null where `read` blocks. Each piece is asked for before the one before it is used; one transfer
 * is under way at most, and none after an error.
 */
struct {{ model }}_parameters {
    int32_t (*read)(void *context, uint64_t offset, void *destination, uint32_t length);
    int32_t (*wait)(void *context, void *destination, uint32_t length);
    void *context;
    uint32_t bound;
};

/*
 * Reads the image's header into `buffer`, {{ p }}_PARAMETERS_HEADER_SIZE bytes (the arena will do), and compares it with
 * the one that belongs to this code. {{ p }}_OK, or one of the errors above; after an error nothing is bound.
 */
int32_t {{ outside.bind }}(struct {{ model }}_parameters *parameters, void *buffer);

/*
 * Reads the whole image through `buffer` of `length` bytes and compares its checksum: what {{ outside.bind }} does not do.
 */
int32_t {{ outside.check }}(const struct {{ model }}_parameters *parameters, void *buffer, uint32_t length);

{% elif outside %}
/* An image that was found to fit: filled by {{ outside.bind }}. Any number of runs may share it. */
struct {{ model }}_parameters {
    const void *image;
    uint32_t bound;
};

/*
 * Binds the image of `size` bytes (or more) at `image`, which is aligned to {{ p }}_PARAMETERS_ALIGN and stays where it is:
 * it is read in place. Compares its header with the one that belongs to this code and touches nothing else of it.
 * {{ p }}_OK, or one of the errors above; after an error nothing is bound.
 */
int32_t {{ outside.bind }}(struct {{ model }}_parameters *parameters, const void *image, size_t size);

/* Reads the whole image and compares its checksum: what {{ outside.bind }} does not do. */
int32_t {{ outside.check }}(const struct {{ model }}_parameters *parameters);

{% endif %}
{% if hooks %}
/* What is called before and after every operator, with its number below {{ p }}_STEPS. Null members are not called. */
struct {{ model }}_hooks {
    void (*before)(void *context, uint32_t step);
    void (*after)(void *context, uint32_t step);
    void *context;
};

{% endif %}
{% if not pointers and not caller and not shared %}
/* The arena{% if pools %}, a part in each memory{% endif %}. Inputs and outputs lie in it at the offsets above. */
{% for pool in pools %}
{% if pool.used %}
extern uint8_t {{ pool.symbol }}[{{ pool.macro }}_SIZE];
{% endif %}
{% else %}
extern uint8_t {{ arena }}[{{ p }}_ARENA_SIZE];
{% endfor %}

{% endif %}
{% if caller and pools %}
/* The parts of the arena: one pointer for each memory. */
struct {{ model }}_arenas {
{% for pool in pools %}
    void *{{ pool.member }}; /* {{ pool.macro }}_SIZE bytes{% if not pool.used %}: not used{% endif %} */
{% endfor %}
};

{% endif %}
/*
{% if pointers or rows %}
 * Runs the network once. {{ p }}_OK, or one of the errors above.
{% else %}
 * Runs the network once on the inputs in the arena. {{ p }}_OK, or one of the errors above. The inputs are consumed:
 * write them again before the next run.
{% endif %}
{% if outside and outside.streamed %}
 * After an error no output has been written, and the next run begins anew.
{% endif %}
{% if hooks %}
 * `hooks` may be null.
{% endif %}
{% if caller and pools %}
 * Each of `arenas` is aligned to {{ p }}_ARENA_ALIGN. Their contents need not survive between runs.
{% elif caller %}
 * `arena` is {{ p }}_ARENA_SIZE bytes, aligned to {{ p }}_ARENA_ALIGN. Its contents need not survive between runs.
{% endif %}
 */
int32_t {{ run }}({{ parameters }});
{% if step %}

/*
 * Runs one operator: that of number `*step`, which is counted up. Begin with 0:
 *
 *     uint32_t step = 0;
 *     while ((status = {{ step.function }}({{ step.arguments }})) == {{ p }}_MORE)
 *         ...
 *
 * {{ p }}_MORE if more follow; {{ p }}_OK after the last, and `*step` is 0 again; or one of the errors above. Between the
 * steps of a run {% if pointers %}the arena, the inputs and the outputs keep their places and contents{% else %}the arena keeps its contents{% endif %}.
{% if outside and outside.streamed %}
 * A piece of the parameters is then under way: if a run is given up where `wait` is used, wait for it before the
 * arena serves something else.
{% endif %}
 */
int32_t {{ step.function }}({{ step.parameters }});
{% endif %}

#ifdef __cplusplus
}
#endif

#endif /* {{ p }}_H */

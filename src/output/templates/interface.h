/*
 * {{ file }}: the C interface of the network "{{ title }}". Made by corerope {{ version }}; do not edit.
 *
 * Model:  {{ source }}
 * Target: {{ target }}
 *
{% if pointers %}
{% for port in inputs + outputs %}
 *     static {{ port.ctype }} {{ port.member }}[{{ port.macro }}_SIZE];
{% endfor %}
{% endif %}
{% if caller %}
 *     static uint8_t arena[{{ p }}_ARENA_SIZE] __attribute__((aligned({{ p }}_ARENA_ALIGN)));
{% endif %}
{% if pointers %}
{% if inputs %}
 *     const struct {{ model }}_inputs inputs = { {{ inputs | map(attribute="member") | join(", ") }} };
{% endif %}
 *     const struct {{ model }}_outputs outputs = { {{ outputs | map(attribute="member") | join(", ") }} };
 *
{% endif %}
 *     if ({{ run }}({{ arguments }}) != {{ p }}_OK)
 *         ...
 *
 * The code behind it calls nothing, allocates nothing and uses at most {{ p }}_STACK_SIZE bytes of stack.
{% if caller %}
 * Runs with different arenas may overlap in time.
{% else %}
 * One run at a time: the arena of {{ arena_size }} bytes is static.
{% endif %}
 */
#ifndef {{ p }}_H
#define {{ p }}_H

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
#define {{ p }}_ARENA_SIZE {{ arena_size }}
#define {{ p }}_ARENA_ALIGN {{ arena_align }}

/* The deepest stack of {{ run }} in bytes, its return address included. */
#define {{ p }}_STACK_SIZE {{ stack }}
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
#define {{ port.macro }}_OFFSET {{ port.offset }} /* in the arena */
{% endif %}
{% endfor %}
{% endfor %}

{% if pointers %}
/* Where the inputs are: one pointer each, in the model's order. They are read in place and never written. */
struct {{ model }}_inputs {
{% for port in inputs %}
    const {{ port.ctype }} *{{ port.member }}; /* {{ port.macro }}_SIZE elements */
{% else %}
    const void *unused;
{% endfor %}
};

/* Where the outputs go. They overlap neither the inputs nor one another. */
struct {{ model }}_outputs {
{% for port in outputs %}
    {{ port.ctype }} *{{ port.member }}; /* {{ port.macro }}_SIZE elements */
{% endfor %}
};

{% elif not caller %}
/* The arena. Inputs and outputs lie in it at the offsets above. */
extern uint8_t {{ arena }}[{{ p }}_ARENA_SIZE];

{% endif %}
/*
{% if pointers %}
 * Runs the network once. {{ p }}_OK, or one of the errors above.
{% else %}
 * Runs the network once on the inputs in the arena. {{ p }}_OK, or one of the errors above. The inputs are consumed:
 * write them again before the next run.
{% endif %}
{% if caller %}
 * `arena` is {{ p }}_ARENA_SIZE bytes, aligned to {{ p }}_ARENA_ALIGN. Its contents need not survive between runs.
{% endif %}
 */
int32_t {{ run }}({{ parameters }});

#ifdef __cplusplus
}
#endif

#endif /* {{ p }}_H */

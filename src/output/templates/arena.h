/* The arena that these networks share: large enough for each of them. */
#ifndef {{ p }}_ARENA_SIZE
#define {{ p }}_ARENA_SIZE {{ size }}
#define {{ p }}_ARENA_ALIGN {{ align }}
{% if symbol %}

#ifdef __cplusplus
extern "C" {
#endif
extern uint8_t {{ symbol }}[{{ p }}_ARENA_SIZE];
#ifdef __cplusplus
}
#endif
{% endif %}
#endif

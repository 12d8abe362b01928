/* The arena that these networks share: large enough for each of them. */
#ifndef {{ first }}
{% for part in parts %}
#define {{ part.macro }} {{ part.size }}
{% endfor %}
#define {{ p }}_ARENA_ALIGN {{ align }}
{% if symbols %}

#ifdef __cplusplus
extern "C" {
#endif
{% for part in parts %}
{% if part.symbol %}
extern uint8_t {{ part.symbol }}[{{ part.macro }}];
{% endif %}
{% endfor %}
#ifdef __cplusplus
}
#endif
{% endif %}
#endif

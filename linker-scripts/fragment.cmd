/*
 * {{ file }}: where the sections of the {{ networks }} {{ titles }} go. Made by corerope {{ version }}; do not edit.
 *
 * For the TI linkers. Give it in front of the main command file, so that its rules are the first that match:
 *
 *     tiarmclang ... -Wl,{{ file }} -Wl,board.cmd
 *
 * What has no name here (.text.{{ any }}.*, .rodata.{{ any }}.*, .bss.{{ any }}.*) is placed with .text, .rodata and .bss.
 * Load and run addresses are the same: nothing is copied at start-up.
 *
{% for rule in placed + kinds %}
 * {{ "%-24s" | format(rule.title) }} {{ "%12d" | format(rule.bytes) }} bytes  {{ rule.about }}
{% endfor %}
 */
{% if regions | selectattr("defined") | list %}

MEMORY
{
{% for region in regions if region.defined %}
    {{ region.name }} ({{ region.access }}) : origin = {{ region.origin }}, length = {{ region.length }}
{% endfor %}
}
{% endif %}
{% if placed | selectattr("memory") | list %}

SECTIONS
{
{% for rule in placed if rule.memory %}
    {{ rule.output }} : { {% for pattern in rule.patterns %}*({{ pattern }}) {% endfor %}} > {{ rule.memory }}, ALIGN({{ rule.align }}){% if rule.zero %}, type = NOINIT{% endif %}

{% endfor %}
}
{% endif %}
{% for rule in placed if not rule.memory %}
{{ "\n/* Without a memory of their own; in the main command file: */\n" if loop.first else "" }}/* {{ rule.output }} : { *({{ rule.output }}) } > YOUR_MEMORY{% if rule.zero %}, type = NOINIT{% endif %} */
{% endfor %}

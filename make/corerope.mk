# Neural networks compiled by corerope in a Makefile (GNU Make 4.0 or later).
#
#   include corerope.mk
#   kws_MODEL := models/kws.tflite
#   kws_OPTIONS := --target thumbv7em-none-eabihf --place-file board.toml
#   $(eval $(call corerope_model,kws))
#
#   firmware.elf: main.o $(kws_LIBRARY) $(kws_FRAGMENT)
#   	$(CC) $(LDFLAGS) -T $(kws_FRAGMENT) -T board.ld main.o $(kws_LIBRARY) -o $@
#   main.o: CPPFLAGS += $(kws_CPPFLAGS)
#   main.o: $(kws_HEADER)
#
# The argument is the model's name: the prefix of its symbols, types and macros, and of the variables. NAME_MODEL is a
# path, in which spaces and other characters stand as they are; NAME_OPTIONS are options of `corerope build` as they
# stand in a shell. NAME_LIBRARY, NAME_HEADER, NAME_FRAGMENT, NAME_REPORT and NAME_CPPFLAGS are what a build gives.
#
# The model is compiled again when it, a place file or the options have changed. What comes out equal keeps its time
# stamp: nothing is compiled or linked again for it.
#
# COREROPE is the program, COREROPE_DIR the folder for what is built; that has no spaces in its name.

COREROPE ?= corerope
COREROPE_DIR ?= corerope-build

corerope_empty :=
corerope_space := $(corerope_empty) $(corerope_empty)
# A word of the shell: between single quotes, where they themselves cannot stand.
corerope_quote = '$(subst ','\'',$(1))'

# A file among prerequisites: what would end it or match others stands behind a backslash.
corerope_escape = $(subst $(corerope_space),\$(corerope_space),$(subst \$(corerope_space),\\$(corerope_space),$(subst [,\[,$(subst ?,\?,$(subst *,\*,$(subst :,\:,$(1)))))))

define corerope_model
$(1)_LIBRARY := $$(COREROPE_DIR)/$(1).a
$(1)_HEADER := $$(COREROPE_DIR)/$(1).h
$(1)_FRAGMENT := $$(COREROPE_DIR)/$(1).ld
$(1)_REPORT := $$(COREROPE_DIR)/$(1).json
$(1)_CPPFLAGS := -I$$(COREROPE_DIR)

# The stamp says that the build was tried; a file that came out equal is older than it, and that is no reason to build
# what depends on the file.
$$(COREROPE_DIR)/$(1).stamp: $$(call corerope_escape,$$($(1)_MODEL)) $$(COREROPE_DIR)/$(1).options
	$$(COREROPE) build $$(call corerope_quote,$$($(1)_MODEL)) -o $$(COREROPE_DIR)/$(1).a --name $(1) --quiet \
		--report $$(COREROPE_DIR)/$(1).json -MD -MF $$(COREROPE_DIR)/$(1).d -MQ $$@ -MP $$($(1)_OPTIONS)
	@touch $$@

$$($(1)_LIBRARY) $$($(1)_HEADER) $$($(1)_FRAGMENT) $$($(1)_REPORT): $$(COREROPE_DIR)/$(1).stamp
	@:

# Rewritten only when the options are others.
$$(COREROPE_DIR)/$(1).options: corerope_force
	@mkdir -p $$(COREROPE_DIR)
	@printf '%s\n' $$(call corerope_quote,$$($(1)_OPTIONS)) | cmp -s - $$@ || \
		printf '%s\n' $$(call corerope_quote,$$($(1)_OPTIONS)) >$$@

-include $$(COREROPE_DIR)/$(1).d
endef

.PHONY: corerope_force
corerope_force:

"""Settings: plain data whose defaults, bounds, units and help texts stand once, on their fields.

The command line and the widgets are built from those fields.

fields          one field with its bounds, unit and help text; the check of all of a class
foreign_spec    networks that others built: their axes, sizes, halo, operations
model_spec      what a network is built from
weight_options  what plain weights do not say of themselves
tasks           how a model is run, decoded, clicked with and trained, and how objects are linked
"""

"""The Models step: the models of the store, what is known of each, and how they come and go.

panel          the step: the tree, the card, what is done with a model
tree           the models as a tree of versions
card_view      the card of one model, with the user's note
card_text      what a card says, in words
exchange_row   the buttons of import and export, and what is asked on the way
exchange       import and export, in a job's thread
weight_dialog  what plain weights do not say of themselves
"""

"""Long work beside the window.

job         one generator in a thread of its own; the queue of each device, the jobs of a widget
run_button  a job with one result, the button that starts and cancels it, a section around both
engine      what the window requests of the network, and the one place where it loads models
"""

"""One module for each way to draw; `renderer.open_renderer` imports the one that is asked for."""

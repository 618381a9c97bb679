"""The tutorial's pictures, drawn by hand as SVG; colours are those of the page's style sheet."""

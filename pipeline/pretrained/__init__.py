"""Published weights of other projects, mapped onto our networks."""

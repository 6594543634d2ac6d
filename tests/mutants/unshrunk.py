"""A plugin for pytest: a mutant is dead with the first example that fails; what the smallest is interests nobody."""

from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile("unshrunk")

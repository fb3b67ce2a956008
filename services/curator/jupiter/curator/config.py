"""The curator's part of the configuration.

Owns: the command line of the service and which section it reads. Does not know: the settings themselves
(`jupiter.config.sections.CuratorSection` documents and bounds them), nor files and environment (`jupiter.config`).
"""

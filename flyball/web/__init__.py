"""The pages: server-rendered, built from one frame and a dozen macros; they ask the platform and compute nothing."""

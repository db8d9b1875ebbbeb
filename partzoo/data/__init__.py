"""Images and labels for training and evaluation, from folders, tars, sheets and official data sets."""

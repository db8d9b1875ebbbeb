"""Images and labels to train and to measure on: folders, tars, sheets and official data sets."""
